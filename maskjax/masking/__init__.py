"""Which tokens are hidden. `True` means hidden, everywhere."""

from maskjax.masking import samplers
from maskjax.masking.informed import attended, hardest, highest
from maskjax.masking.mask import Mask, Sampler, draw, gather, num_hidden
from maskjax.masking.samplers import blockwise, blue, green, purple, random, red

__all__ = [
  "Mask",
  "Sampler",
  "attended",
  "blockwise",
  "blue",
  "draw",
  "gather",
  "green",
  "hardest",
  "highest",
  "num_hidden",
  "purple",
  "random",
  "red",
  "samplers",
]
