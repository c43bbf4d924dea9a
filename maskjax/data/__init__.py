"""From files to batches: sources, transforms of records, the pipeline, mixing.

A config names a source of `maskjax.data.sources` or a transform of
`maskjax.data.transforms`, or gives the import path of another function.
"""

from maskjax.data import sources, transforms
from maskjax.data.configured import bind_transform
from maskjax.data.mixing import mixup_cutmix, smooth_labels
from maskjax.data.pipeline import Pipeline
from maskjax.data.sources import (
  array_record,
  arrays,
  digits,
  idx,
  image_folder,
  image_pairs,
  packed_rows,
  text,
  tfds,
)
from maskjax.data.transforms import (
  center_crop,
  color_jitter,
  normalize,
  rand_augment,
  random_blur,
  random_crop,
  random_erasing,
  random_flip,
  random_gray,
  random_resized_crop,
  random_solarize,
  resize,
  second_view,
  to_float,
  two_views,
)

__all__ = [
  "Pipeline",
  "array_record",
  "arrays",
  "bind_transform",
  "center_crop",
  "color_jitter",
  "digits",
  "idx",
  "image_folder",
  "image_pairs",
  "mixup_cutmix",
  "normalize",
  "packed_rows",
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
  "smooth_labels",
  "sources",
  "text",
  "tfds",
  "to_float",
  "transforms",
  "two_views",
]
