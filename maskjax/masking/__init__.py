"""Which tokens are hidden. `True` means hidden, everywhere."""

from maskjax.masking import samplers
from maskjax.masking.mask import Mask, Sampler, draw, gather, num_hidden
from maskjax.masking.samplers import random

__all__ = ["Mask", "Sampler", "draw", "gather", "num_hidden", "random", "samplers"]
