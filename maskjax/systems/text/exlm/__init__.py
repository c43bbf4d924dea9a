"""ExLM: mask tokens as several states, which differ and depend on each other.

A text with masked tokens may mean many things. So each mask token is expanded into
several states, which have positions of their own beside the token's (rotary positions
of two axes), and are tied by a matrix of transitions. Which state emits which of the
masked tokens is left open: the loss is the likelihood of them all, summed over all
paths through the states (https://arxiv.org/abs/2501.13397, section 4). Config:
`configs/text/exlm.py`.
"""

from maskjax.systems.system import System
from maskjax.systems.text.exlm.objective import exlm

__all__ = ["SYSTEM", "exlm"]

SYSTEM = System(
  name="exlm",
  family="text",
  paper="arXiv:2501.13397",
  config="configs/text/exlm.py",
  agrees_with="equations in NumPy",
  differs=(
    "With `zero_masks`, mask tokens are embedded as zeros wherever there are any, not "
    "in training alone.",
    "Of the special tokens of joined documents the first and the last one of a row "
    "alone are expanded and emitted; the authors also expand those between documents.",
    "All rows end with a special token; the authors' end anywhere, and the last token, "
    "if it is visible, emits the last masked one.",
    "There are as many positions for transitions as an expanded row needs, not 2,048.",
    "As many tokens are masked as BERT masks; fairseq rounds at random, and masks the "
    "tokens around documents as well.",
  ),
)
