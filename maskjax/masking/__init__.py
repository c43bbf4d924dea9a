"""Which tokens are hidden. `True` means hidden, everywhere."""

from maskjax.masking import samplers
from maskjax.masking.mask import Mask, Sampler, draw, gather, num_hidden
from maskjax.masking.samplers import (
  aligned,
  blockwise,
  highest,
  num_hidden_in_units,
  random,
)
from maskjax.masking.weighted import weighted

__all__ = [
  "Mask",
  "Sampler",
  "aligned",
  "blockwise",
  "draw",
  "gather",
  "highest",
  "num_hidden",
  "num_hidden_in_units",
  "random",
  "samplers",
  "weighted",
]
