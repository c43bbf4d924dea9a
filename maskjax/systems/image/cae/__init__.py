"""CAE: the context autoencoder.

An encoder of the visible patches alone, as in MAE, which is kept from doing the
decoder's work, and the decoder from doing the encoder's: a regressor first predicts the
masked patches' latents from the visible ones by cross-attention, and is aligned with
those that the encoder gives when it sees the masked patches; a decoder then predicts a
tokenizer's codes from these latents, and sees nothing else
(https://arxiv.org/abs/2202.03026). The paper's tokenizer is DALL-E's; here it is any,
see `maskjax.objectives.tokenizers`. Config: `configs/image/cae.py`.
"""

from maskjax.systems.image.cae.objective import cae
from maskjax.systems.system import System

__all__ = ["SYSTEM", "cae"]

SYSTEM = System(
  name="cae",
  family="image",
  paper="arXiv:2202.03026",
  config="configs/image/cae.py",
  agrees_with="equations in NumPy",
  differs=(
    "The tokenizer is any of this library, and not DALL-E's.",
    "Latents are aligned with those of the encoder as it is; the authors' are of the "
    "encoder one step before, since they copy it after its use.",
  ),
)
