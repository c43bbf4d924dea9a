"""VQ-KD: the tokenizer of BEiT v2, by vector-quantized knowledge distillation.

BEiT's codes follow the colors of a patch; these are learned by predicting a teacher's
features from them, so that they follow what the patch shows. A ViT gives each patch a
short vector of length 1, the nearest one of a codebook takes its place, and a light
decoder predicts the teacher's features from the chosen ones, compared by their cosine.
Gradients pass the lookup unchanged, and each code is a moving average of the vectors
that choose it (https://arxiv.org/abs/2208.06366, section 2.2). Config:
`configs/image/vqkd.py`.
"""

from maskjax.systems.image.vqkd.objective import vqkd
from maskjax.systems.system import System

__all__ = ["SYSTEM", "vqkd"]

SYSTEM = System(
  name="vqkd",
  family="image",
  paper="arXiv:2208.06366",
  config="configs/image/vqkd.py",
  agrees_with="equations in NumPy",
  differs=(
    "The first codebook has eight vectors a code of the first batch to begin with; the "
    "authors' has those of one device's images, of each device its own.",
    "Counts of codes go on over epochs; the authors reset theirs, which no loss reads.",
  ),
)
