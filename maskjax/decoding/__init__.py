"""What trained text models do: fill masks, generate, score texts, embed them."""

from maskjax.decoding.any_order import Fill, generate, log_likelihood
from maskjax.decoding.fill import (
  Prediction,
  fill,
  pseudo_log_likelihood,
  pseudo_perplexity,
)
from maskjax.decoding.trained import Trained, load

__all__ = [
  "Fill",
  "Prediction",
  "Trained",
  "fill",
  "generate",
  "load",
  "log_likelihood",
  "pseudo_log_likelihood",
  "pseudo_perplexity",
]
