"""Structural self-supervised objectives: random token substitution, in three ways.

No token becomes a mask token; 15 % are substituted by others. RTS predicts of each
token whether it is the original; so does C-RTS, but it draws substitutes from the
clusters of tokens that passed for tokens of the original's cluster before; and SLM
substitutes at random and predicts what the originals were
(https://arxiv.org/abs/2309.08272; https://arxiv.org/abs/2210.13536). Config:
`configs/text/token_substitution.py`.
"""

from maskjax.systems.system import System
from maskjax.systems.text.token_substitution.objective import token_substitution

__all__ = ["SYSTEM", "token_substitution"]

SYSTEM = System(
  name="token_substitution",
  family="text",
  paper="arXiv:2309.08272",
  config="configs/text/token_substitution.py",
  agrees_with="equations in NumPy",
  differs=(
    "Detection has one logit, where the authors have one for either answer.",
    "A token that is drawn to replace itself counts as the original; the authors count "
    "it as a substitute.",
    "As many tokens of each row are substituted, by tokens that texts have; the "
    "authors draw each token by itself, and special ones too.",
  ),
)
