"""From signals to tokens [B, N, ...] and back."""

from maskjax.tokens.patches import grid_of, patchify, unpatchify
from maskjax.tokens.positions import grid_positions, sincos
from maskjax.tokens.text import Text

__all__ = ["Text", "grid_of", "patchify", "grid_positions", "sincos", "unpatchify"]
