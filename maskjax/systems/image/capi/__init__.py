"""CAPI: cluster and predict latent patches.

A ViT sees one block of an image, and a predictor that attends to its features alone
predicts the clusters to which masked patches belong by the features of a teacher, an
average of the ViT over past steps. The clusters are learned at the same time, from the
teacher's features and with a learning rate of their own; Sinkhorn and Knopp's iteration
shares them out evenly at each position of the grid, so that no cluster can stand for a
position (https://arxiv.org/abs/2502.08769). Config: `configs/image/capi.py`.
"""

from maskjax.systems.image.capi.objective import Capi, capi
from maskjax.systems.system import System

__all__ = ["SYSTEM", "Capi", "capi"]

SYSTEM = System(
  name="capi",
  family="image",
  paper="arXiv:2502.08769",
  config="configs/image/capi.py",
  agrees_with="equations in NumPy",
  differs=(
    "Each example drops a branch by a draw of its own; the authors drop it for a fixed "
    "share of a device's examples.",
    "Rotary positions are computed in float32 where the authors have bfloat16.",
    "Registers may be of any number; the authors' is a multiple of four.",
    "The setting trains on ImageNet-1k; the released config streams ImageNet-22k.",
  ),
)
