"""The transforms that a config can name: functions of single records, before batching.

A transform is a function of a record, or of a record and an `rng`, with its
hyperparameters as keywords. It returns a new record of NumPy arrays. The pipeline
passes an `np.random.Generator` to those that have a parameter named `rng`; the same
generator gives the same result.

Those of images work on the record's `"image"`, uint8 or float32 `[H, W, C]`, and on its
`"image2"` where it holds a pair; random changes are drawn for each image separately.
`join_documents` works on rows of tokens.
"""

from maskjax.data.augment import rand_augment, trivial_augment
from maskjax.data.colors import (
  color_jitter,
  random_blur,
  random_gray,
  random_solarize,
)
from maskjax.data.crops import (
  center_crop,
  random_crop,
  random_flip,
  random_resized_crop,
  resize,
  spaced_patches,
)
from maskjax.data.joining import join_documents
from maskjax.data.values import normalize, random_erasing, to_float
from maskjax.data.views import second_view, two_views

__all__ = [
  "center_crop",
  "color_jitter",
  "join_documents",
  "normalize",
  "rand_augment",
  "random_blur",
  "random_crop",
  "random_erasing",
  "random_flip",
  "random_gray",
  "random_resized_crop",
  "random_solarize",
  "resize",
  "second_view",
  "spaced_patches",
  "to_float",
  "trivial_augment",
  "two_views",
]
