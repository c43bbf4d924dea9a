"""What trained models give: texts filled in, written, judged, and as vectors."""

from maskjax.decoding.any_order import Fill, generate, log_likelihood
from maskjax.decoding.fill import Guess, fill, pseudo_log_likelihood, pseudo_perplexity
from maskjax.decoding.trained import Trained, load

__all__ = [
  "Fill",
  "Guess",
  "Trained",
  "fill",
  "generate",
  "load",
  "log_likelihood",
  "pseudo_log_likelihood",
  "pseudo_perplexity",
]
