"""Latent MIM: latent masked image modeling for visual representations.

Masks nine tenths of an image's patches; a decoder attends to the features of the
visible ones and predicts the features of the masked ones, which come from an average of
the encoder over past steps that sees the masked patches alone. Each prediction has to
find its own target among all of its image, and the features of an image must be neither
too alike nor too different. The paper's gaps between patches are a transform of the
data, `maskjax.data.transforms.spaced_patches` (https://arxiv.org/abs/2407.15837).
Config: `configs/image/latent_mim.py`.
"""

from maskjax.systems.image.latent_mim.objective import latent_mim
from maskjax.systems.system import System

__all__ = ["SYSTEM", "latent_mim"]

SYSTEM = System(
  name="latent_mim",
  family="image",
  paper="arXiv:2407.15837",
  config="configs/image/latent_mim.py",
  agrees_with="equations in NumPy",
  differs=(
    "The distance from the similarity that is aimed at is squared for each image, and "
    "not for the mean of a device's batch.",
    "The teacher follows after a step, with that step's decay; the authors' follows "
    "before the next one, with the next one's.",
  ),
)
