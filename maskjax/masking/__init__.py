"""Which tokens are masked. `True` means masked, everywhere."""

from maskjax.masking import samplers
from maskjax.masking.informed import attended, hardest
from maskjax.masking.mask import Mask, Sampler, draw, gather, num_masked
from maskjax.masking.multi_block import MultiBlock
from maskjax.masking.policy import Masking, masking_of
from maskjax.masking.samplers import (
  aligned,
  blockwise,
  blue,
  green,
  inverse_block,
  num_masked_in_units,
  purple,
  random,
  red,
)
from maskjax.masking.selection import highest
from maskjax.masking.weighted import weighted

__all__ = [
  "Mask",
  "Masking",
  "MultiBlock",
  "Sampler",
  "aligned",
  "attended",
  "blockwise",
  "blue",
  "draw",
  "gather",
  "green",
  "hardest",
  "highest",
  "inverse_block",
  "masking_of",
  "num_masked",
  "num_masked_in_units",
  "purple",
  "random",
  "red",
  "samplers",
  "weighted",
]
