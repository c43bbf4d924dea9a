"""dBOT: exploring target representations for masked autoencoders.

MAE whose decoder predicts a teacher's features of the whole image in place of pixels,
and whose first teacher is a random network, the student as it begins: after each stage
the student becomes the teacher, and a new student begins at random. The features are
those of the last block, before the last normalization, each token minus its mean over
its std; they are compared by a smooth L1 error (https://arxiv.org/abs/2209.03917).
Config: `configs/image/dbot.py`.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack

import jax
from jax import Array

from maskjax import keys
from maskjax.errors import positive
from maskjax.losses import Loss, smooth_l1
from maskjax.masking import masking_of
from maskjax.models import MaskedAutoencoder, Network, decoder_of, vit_encoder
from maskjax.objectives import teachers
from maskjax.objectives.objective import Batch, Step, Variables
from maskjax.objectives.patches import PatchObjective
from maskjax.objectives.reconstruction import patch_loss
from maskjax.objectives.teachers import Bootstrap, Teacher
from maskjax.systems.system import System
from maskjax.targets import normalized_pixels
from maskjax.tokens import patches_of

SYSTEM = System(
  name="dbot",
  family="image",
  paper="arXiv:2209.03917",
  config="configs/image/dbot.py",
  agrees_with="transformers ViTModel and PyTorch",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DBot(PatchObjective):
  """The objective of dBOT; `dbot` makes it from hyperparameters.

  Attributes:
    teacher: see `maskjax.objectives.teachers`.
    error: of each token, from two [B, M, T] to [B, M].
  """

  teacher: Teacher
  error: Callable[[Array, Array], Array]

  @property
  def pretrained(self) -> Mapping[str, str]:
    """The teacher's run."""
    return self.teacher.pretrained

  def init(self, key: Array, batch: Batch) -> Variables:
    """Parameters for images of the batch's shape, and the teacher."""
    params = self.init_params(key, batch)
    return Variables(params, {"teacher": self.teacher.init(params, key, batch)})

  def loss(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """Mean error of the masked patches, with dropped paths."""
    return self._loss(variables, batch, step, self.rngs(batch, step))

  def evaluate(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """Mean error of the masked patches, by the whole network."""
    return self._loss(variables, batch, step, {})

  def update(
    self, variables: Variables, batch: Batch, step: Step, sums: Mapping[str, Any]
  ) -> Variables:
    """Updates the teacher; after the last step of a stage a new student begins.

    The new student has random parameters. The optimizer's state stays as it is.
    """
    params, extra = variables
    teacher = self.teacher.update(extra["teacher"], params, step)
    if isinstance(self.teacher, Bootstrap):
      params = jax.lax.cond(
        self.teacher.ends_stage(step),
        lambda: self.init_params(keys.named(step.key, "restart"), batch),
        lambda: params,
      )
    return Variables(params, {**extra, "teacher": teacher})

  def last_block(self, variables: Variables, batch: Batch) -> Array:
    """The last block's output of whole images, not normalized: [B, N, D]."""
    return self.model.encoder.patch_tokens(self.layers(variables, batch).tokens[-1])

  def _loss(
    self, variables: Variables, batch: Batch, step: Step, rngs: Mapping[str, Array]
  ) -> Loss:
    mask = self.mask(batch, step)
    predictions = self.apply(variables, self.patches(batch), mask, rngs=rngs)
    taught = variables.extra["teacher"]
    features = self.teacher.features(self.last_block, taught, batch)
    targets = normalized_pixels(features)
    return patch_loss(self.error, predictions, targets, mask, batch)


def dbot(
  *,
  teacher: Mapping[str, Any] | str,
  image_size: int | Sequence[int] = 224,
  channels: int = 3,
  patch_size: int | Sequence[int] = 16,
  encoder: Mapping[str, Any] | str = "B",
  decoder: Mapping[str, Any] | None = None,
  mask: str | Mapping[str, Any] = "random",
  mask_ratio: float = 0.75,
  beta: float = 2.0,
  drop_path: float = 0.2,
  **network: Unpack[Network],
) -> DBot:
  """Makes dBOT from hyperparameters.

  Args:
    teacher: a teacher of `maskjax.objectives.teachers`, with its keywords; the paper's
      own is `bootstrap`.
    image_size: side, or (height, width), in pixels.
    channels: values a pixel.
    patch_size: side, or (height, width), in pixels.
    encoder: a size of `maskjax.models.VIT_SIZES`, or `width`, `depth`, `heads`.
    decoder: `width`, `depth`, `heads`; 512, 8 and 16 when None.
    mask: name of a sampler of `maskjax.masking`, or an import path.
    mask_ratio: share of the patches that is masked.
    beta: difference at which the error turns from squared to absolute.
    drop_path: drop rate of the last block of encoder and decoder; earlier blocks'
      rise from 0 to it.
    **network: see `maskjax.models.Network`.

  Raises:
    UserError: a size, a shape, a ratio or a teacher that does not fit; names it.

  Example:
    >>> system = dbot(
    ...   teacher={"name": "bootstrap", "stages": 2},
    ...   image_size=8, channels=1, patch_size=2, encoder="Ti",
    ... )
    >>> system.model.decoder.patch_dim
    192
  """
  positive(beta=beta)
  patches = patches_of(image_size, patch_size, channels=channels)
  network = {"initialization": "mae", **network}
  vit = vit_encoder(grid=patches.grid, encoder=encoder, drop_path=drop_path, **network)
  built = teachers.build(teacher)
  size = teachers.features_width(built, vit, patches)
  return DBot(
    model=MaskedAutoencoder(
      encoder=vit, decoder=decoder_of(vit, decoder, patch_dim=size)
    ),
    patches=patches,
    masking=masking_of(patches.grid, mask, mask_ratio),
    teacher=built,
    error=functools.partial(smooth_l1, beta=beta),
  )
