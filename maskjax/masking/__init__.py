"""Which tokens are hidden. `True` means hidden, everywhere."""

from maskjax.masking import samplers
from maskjax.masking.mask import Mask, Sampler, draw, gather, num_hidden
from maskjax.masking.multi_block import MultiBlock
from maskjax.masking.samplers import blockwise, highest, inverse_block, random

__all__ = [
  "Mask",
  "MultiBlock",
  "Sampler",
  "blockwise",
  "draw",
  "gather",
  "highest",
  "inverse_block",
  "num_hidden",
  "random",
  "samplers",
]
