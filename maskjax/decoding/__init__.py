"""What trained models give: hidden tokens filled in, texts judged, texts as vectors."""

from maskjax.decoding.fill import Guess, fill, pseudo_log_likelihood, pseudo_perplexity
from maskjax.decoding.trained import Trained, load

__all__ = [
  "Guess",
  "Trained",
  "fill",
  "load",
  "pseudo_log_likelihood",
  "pseudo_perplexity",
]
