"""What predictions are compared with: from images to targets [B, N, T]."""

from maskjax.normalization import unit, whitened
from maskjax.targets.centroids import kmeans, nearest
from maskjax.targets.hog import Hog, histograms
from maskjax.targets.pixels import Pixels, normalized_pixels
from maskjax.targets.sinkhorn import sinkhorn
from maskjax.targets.target import Target

__all__ = [
  "Hog",
  "Pixels",
  "Target",
  "histograms",
  "kmeans",
  "nearest",
  "normalized_pixels",
  "sinkhorn",
  "unit",
  "whitened",
]
