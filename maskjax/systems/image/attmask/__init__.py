"""AttMask: what to mask from your students, attention-guided masked image modeling.

Masks the patches that the teacher's class token attends to most in the last block, the
mean over heads. All else is iBOT (https://arxiv.org/abs/2111.07832): the student sees
mask tokens in their place, and learns by cross-entropy to match the teacher's
probabilities of prototypes, at each masked patch those of the same patch, at the class
token those of the other view of the image. The teacher is an average of the student;
its logits are centered and sharpened (https://arxiv.org/abs/2203.12719). Config:
`configs/image/attmask.py`.
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
)
