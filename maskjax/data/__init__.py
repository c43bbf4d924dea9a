"""From files to batches: sources, transforms of records, the pipeline, mixing.

A config names a source or a transform by one of the names below, or by the import
path of a function of one's own.
"""

from maskjax.data.augment import rand_augment
from maskjax.data.files import array_record, image_folder, tfds
from maskjax.data.mixing import mixup_cutmix, smooth_labels
from maskjax.data.pipeline import Pipeline
from maskjax.data.sources import arrays, digits, idx
from maskjax.data.transforms import (
  center_crop,
  normalize,
  random_crop,
  random_erasing,
  random_flip,
  random_resized_crop,
  resize,
  to_float,
)

__all__ = [
  "Pipeline",
  "array_record",
  "arrays",
  "center_crop",
  "digits",
  "idx",
  "image_folder",
  "mixup_cutmix",
  "normalize",
  "rand_augment",
  "random_crop",
  "random_erasing",
  "random_flip",
  "random_resized_crop",
  "resize",
  "smooth_labels",
  "tfds",
  "to_float",
]
