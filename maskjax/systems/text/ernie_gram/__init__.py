"""ERNIE-Gram: explicitly n-gram masked language modeling.

An n-gram that is masked leaves one mask token, from which it is predicted as a whole,
by its number in a lexicon; beside the text stand mask symbols, one for each of its
tokens, which see the text alone and from which these are predicted. A generator, which
predicts masked n-grams as wholes, proposes plausible ones, which stand in place of mask
tokens; where they stand has to be detected as well (https://arxiv.org/abs/2010.12148).
Config: `configs/text/ernie_gram.py`.
"""

from maskjax.systems.system import System
from maskjax.systems.text.ernie_gram.objective import ernie_gram

__all__ = ["SYSTEM", "ernie_gram"]

SYSTEM = System(
  name="ernie_gram",
  family="text",
  paper="arXiv:2010.12148",
  config="configs/text/ernie_gram.py",
  agrees_with="equations in NumPy",
  differs=(
    "The authors released no pretraining code: its optimizer is that of their "
    "finetuning, at the rates and for the steps of BERT.",
    "The generator's depth, and how often its n-grams stand in place of mask tokens, "
    "are ours.",
  ),
)
