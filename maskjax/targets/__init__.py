"""What should have been there: from images to targets [B, N, T]."""

from maskjax.targets.centroids import kmeans, nearest
from maskjax.targets.pixels import Pixels, normalized_pixels
from maskjax.targets.target import Target

__all__ = ["Pixels", "Target", "kmeans", "nearest", "normalized_pixels"]
