"""What should have been there: functions from patches to targets [B, K, D]."""

from maskjax.targets.pixels import normalized_pixels, pixels

__all__ = ["normalized_pixels", "pixels"]
