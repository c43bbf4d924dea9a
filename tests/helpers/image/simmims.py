"""SimMIMs that the tests share."""

import jax
import numpy as np
from helpers.arrays import random

from maskjax.systems import simmim

KEY = jax.random.key(0)
ENCODERS = {
  "vit": {"width": 8, "depth": 1, "heads": 2},
  "swin": {"width": 8, "depths": (1, 1), "heads": (2, 2), "window": 2},
  "swinv2": {"width": 8, "depths": (1, 1), "heads": (2, 2), "window": 2},
}


def make(encoder_type="vit", **more):
  """Images of 12x12 pixels, 36 patches, 9 units of 4 patches of which 6 are masked."""
  return simmim(
    **{
      "image_size": 12,
      "patch_size": 2,
      "encoder_type": encoder_type,
      "encoder": ENCODERS.get(encoder_type),
      "mask_patch_size": 4,
      **more,
    }
  )


def make_batch():
  return {
    "image": random(4, 12, 12, 3),
    "index": np.array([3, 0, 8, 5]),
    "valid": np.array([True, True, False, True]),
  }
