"""AttMask: what to mask from your students, attention-guided masked image modeling.

Masks the patches that the teacher's class token attends to most in the last block, the
mean over heads. All else is iBOT (https://arxiv.org/abs/2111.07832): the student sees
mask tokens in their place, and learns by cross-entropy to match the teacher's
probabilities of prototypes, at each masked patch those of the same patch, at the class
token those of the other view of the image. So do class tokens of small crops, none of
which is masked. The teacher is an average of the student; its logits are centered and
sharpened (https://arxiv.org/abs/2203.12719). Config: `configs/image/attmask.py`.
"""

from maskjax.systems.image.attmask.objective import AttMask, attmask
from maskjax.systems.system import System

__all__ = ["SYSTEM", "AttMask", "attmask"]

SYSTEM = System(
  name="attmask",
  family="image",
  paper="arXiv:2203.12719",
  config="configs/image/attmask.py",
  agrees_with="equations in PyTorch",
  differs=(
    "Each image masks a share of its own; the authors draw one share for a batch.",
    "Hints are a share of what an image masks, as in the paper; the authors' code "
    "draws another share for them.",
    "Gradients of queries, keys and values are clipped apart; the authors have them as "
    "one parameter.",
    "The teacher's temperature rises with each step, and not with each epoch.",
    "Prototypes decay in the first epoch too, in which they learn nothing.",
  ),
)
