"""What configs of a family share: data, evaluation and usual numbers, as functions.

A config begins with one of these and adds what is particular to its system, so that a
setting reads like the table of its paper.
"""

from maskjax.recipes.image import (
  CLIP_COLORS,
  COLORS,
  FASHION_ROOT,
  SIGNED_COLORS,
  epoch,
  fashion_mnist,
  frozen,
  imagenet,
  imagenet_vit,
  small_image,
)
from maskjax.recipes.text import (
  NOTHING,
  TEXT_ROOT,
  bert_paper,
  packed_text,
  python_reference,
  small_text,
)

__all__ = [
  "CLIP_COLORS",
  "COLORS",
  "FASHION_ROOT",
  "NOTHING",
  "SIGNED_COLORS",
  "TEXT_ROOT",
  "bert_paper",
  "epoch",
  "fashion_mnist",
  "frozen",
  "imagenet",
  "imagenet_vit",
  "packed_text",
  "python_reference",
  "small_image",
  "small_text",
]
