"""RetroMAE v2: duplex masked auto-encoder for retrieval-oriented language models.

Beside masked language modeling at 30 %, the features of a document's first token have
to reconstruct the whole document, by a decoder of one block that sees but half of its
tokens, other ones at each position (RetroMAE, https://arxiv.org/abs/2205.12035); and
the features of the other tokens, as logits of which the largest over the document
count, have to predict which words it has (https://arxiv.org/abs/2211.08769). A
document's embedding is the first token's features, projected, and the largest of those
logits. Config: `configs/text/dupmae.py`.
"""

from maskjax.systems.system import System
from maskjax.systems.text.dupmae.objective import dupmae

__all__ = ["SYSTEM", "dupmae"]

SYSTEM = System(
  name="dupmae",
  family="text",
  paper="arXiv:2211.08769",
  config="configs/text/dupmae.py",
  agrees_with="equations in NumPy",
  differs=(
    "Rows may hold several documents, each with a bag; the paper's hold one.",
    "What is decoded of a row, and a document's bag, weigh as much as the masked "
    "tokens do; the authors weigh all decoded tokens alike, and all documents.",
    "The projection of embeddings has no decay, since pretraining does not learn it.",
  ),
)
