"""From signals to tokens [B, N, ...] and back."""

from maskjax.tokens.patches import (
  Patches,
  grid_of,
  patches_of,
  patchify,
  per_side,
  unpatchify,
)
from maskjax.tokens.positions import grid_positions, sincos
from maskjax.tokens.text import Text

__all__ = [
  "Patches",
  "Text",
  "grid_of",
  "grid_positions",
  "patches_of",
  "patchify",
  "per_side",
  "sincos",
  "unpatchify",
]
