"""MaskDistill: a unified view of masked image modeling.

Masks blocks of 40 % of an image's patches with mask tokens inside a ViT, and predicts
a teacher's features of the whole image at the masked patches with a linear layer: each
feature vector normalized by layer normalization without parameters, compared by a
smooth L1 error (https://arxiv.org/abs/2210.10615). The features are those after the
teacher's last normalization, or with `last_norm=False` those before it; the paper does
not say which. Config: `configs/image/maskdistill.py`.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack, cast

from jax import Array

from maskjax.errors import positive
from maskjax.losses import Loss, smooth_l1
from maskjax.masking import masking_of
from maskjax.models import MaskedEncoder, Network, vit_encoder
from maskjax.objectives import teachers
from maskjax.objectives.objective import Batch, Step, Variables
from maskjax.objectives.patches import PatchObjective
from maskjax.objectives.reconstruction import patch_loss
from maskjax.objectives.teachers import Teacher
from maskjax.systems.system import System
from maskjax.targets import whitened
from maskjax.tokens import patches_of

SYSTEM = System(
  name="maskdistill",
  family="image",
  paper="arXiv:2210.10615",
  config="configs/image/maskdistill.py",
  agrees_with="transformers ViTModel and PyTorch",
  differs=(
    "The authors' code is not public: the teacher's features are those after its last "
    "normalization, as in their code of BEiT v2, and other details are BEiT v2's, too.",
  ),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskDistill(PatchObjective):
  """The objective of MaskDistill; `maskdistill` makes it from hyperparameters.

  Attributes:
    teacher: see `maskjax.objectives.teachers`.
    error: of each token, from two [B, M, T] to [B, M].
    last_norm: whether the features are those after the teacher's last normalization, or
      before it.
  """

  teacher: Teacher
  error: Callable[[Array, Array], Array]
  last_norm: bool = True

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
    """Lets the teacher follow, where it does."""
    params, extra = variables
    teacher = self.teacher.update(extra["teacher"], params, step)
    return Variables(params, {**extra, "teacher": teacher})

  def _loss(
    self, variables: Variables, batch: Batch, step: Step, rngs: Mapping[str, Array]
  ) -> Loss:
    mask = self.mask(batch, step)
    predictions = self.apply(variables, self.patches(batch), mask, rngs=rngs)
    targets = whitened(self._taught(variables.extra["teacher"], batch))
    return patch_loss(self.error, predictions, targets, mask, batch)

  def _taught(self, state: Any, batch: Batch) -> Array:
    """The teacher's features of all patches: [B, N, T]."""
    if self.last_norm:
      return cast(Array, self.teacher.features(self.features, state, batch))
    tokens = self.teacher.layers(self, state, batch).tokens[-1]
    return tokens[:, -self.patches.length :]


def maskdistill(
  *,
  teacher: Mapping[str, Any] | str,
  image_size: int | Sequence[int] = 224,
  channels: int = 3,
  patch_size: int | Sequence[int] = 16,
  encoder: Mapping[str, Any] | str = "B",
  mask: str | Mapping[str, Any] = "blockwise",
  mask_ratio: float = 0.4,
  beta: float = 1.0,
  last_norm: bool = True,
  positions: str = "relative",
  layer_scale: float | None = 0.1,
  drop_path: float = 0.1,
  **network: Unpack[Network],
) -> MaskDistill:
  """Makes MaskDistill from hyperparameters.

  Args:
    teacher: a teacher of `maskjax.objectives.teachers`, with its keywords.
    image_size: side, or (height, width), in pixels.
    channels: values a pixel.
    patch_size: side, or (height, width), in pixels.
    encoder: a size of `maskjax.models.VIT_SIZES`, or `width`, `depth`, `heads`.
    mask: name of a sampler of `maskjax.masking`, or an import path.
    mask_ratio: share of the patches that is masked, rounded down.
    beta: difference at which the error turns from squared to absolute.
    last_norm: take the teacher's features after its last normalization; False takes
      those before it.
    positions: see `maskjax.models.VisionEncoder`.
    layer_scale: see `maskjax.models.BlockOptions`.
    drop_path: drop rate of the last block; earlier blocks' rise from 0 to it.
    **network: see `maskjax.models.Network`.

  Raises:
    UserError: a size, a ratio or a teacher that does not fit; names it.

  Example:
    >>> system = maskdistill(
    ...   teacher="ema", image_size=8, channels=1, patch_size=2, encoder="Ti"
    ... )
    >>> system.masking.num_masked, system.model.size
    (6, 192)
  """
  positive(beta=beta)
  patches = patches_of(image_size, patch_size, channels=channels)
  network = {"initialization": "beit", **network}
  vit = vit_encoder(
    grid=patches.grid,
    encoder=encoder,
    masked_patches="token",
    positions=positions,
    layer_scale=layer_scale,
    drop_path=drop_path,
    **network,
  )
  built = teachers.build(teacher)
  if last_norm:
    size = teachers.features_width(built, vit, patches)
  else:
    size = teachers.layer_shapes(built, vit, patches)[-1][-1]
  return MaskDistill(
    model=MaskedEncoder(encoder=vit, size=size),
    patches=patches,
    masking=masking_of(patches.grid, mask, mask_ratio, rounding="down"),
    teacher=built,
    error=functools.partial(smooth_l1, beta=beta),
    last_norm=last_norm,
  )
