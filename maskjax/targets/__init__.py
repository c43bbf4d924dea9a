"""What should have been there: from images to targets [B, N, T]."""

from maskjax.targets.features import unit, whitened
from maskjax.targets.pixels import Pixels, normalized_pixels
from maskjax.targets.target import Target

__all__ = ["Pixels", "Target", "normalized_pixels", "unit", "whitened"]
