"""StructFormer for little data: masked language models that build structure inside.

A parser of convolutions induces a distance between neighboring tokens and a height of
each token, and from them how likely each token depends on each other one. Attention
goes along these dependencies alone, from heads to children and back, so that the loss
of masked language modeling teaches the parser too (https://arxiv.org/abs/2012.00857,
with learned positions and, as a variant, ordinary blocks before the parser, as in
https://arxiv.org/abs/2310.20589). Config: `configs/text/structformer.py`.
"""

from maskjax.systems.system import System
from maskjax.systems.text.structformer.objective import structformer

__all__ = ["SYSTEM", "structformer"]

SYSTEM = System(
  name="structformer",
  family="text",
  paper="arXiv:2310.20589",
  config="configs/text/structformer.py",
  agrees_with="equations in NumPy",
  differs=(
    "The rate falls along a cosine; the authors halve it where the held-out loss has "
    "not fallen for three epochs.",
    "Weight decay is decoupled; the authors add it to the gradient.",
    "As many tokens of each row are masked; the authors draw each token by itself.",
    "A row may hold several documents, each a tree of its own.",
  ),
)
