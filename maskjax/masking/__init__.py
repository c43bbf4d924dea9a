"""Which tokens are hidden. `True` means hidden, everywhere."""

from maskjax.masking import samplers
from maskjax.masking.mask import Mask, Sampler, draw, gather, num_hidden
from maskjax.masking.samplers import blockwise, highest, random
from maskjax.masking.weighted import weighted

__all__ = [
  "Mask",
  "Sampler",
  "blockwise",
  "draw",
  "gather",
  "highest",
  "num_hidden",
  "random",
  "samplers",
  "weighted",
]
