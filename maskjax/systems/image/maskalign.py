"""MaskAlign: stare at what you see, masked image modeling without reconstruction.

Shows a student few patches, rather those that a teacher attends to, and predicts
nothing of the others: what the student says of the visible patches is to be what the
teacher says of them within the whole image. Learned weights mix the student's blocks for
each of the teacher's last five, whose tokens are normalized and compared by a smooth L1
error (https://arxiv.org/abs/2211.08887). Config: `configs/image/maskalign.py`.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack, cast

import jax
import jax.numpy as jnp
from jax import Array

from maskjax import keys, masking, resolve
from maskjax.errors import UserError, positive
from maskjax.losses import Loss, Mean, smooth_l1
from maskjax.masking import Mask, samplers
from maskjax.models import AlignedEncoder, Layers, Network, vit_encoder
from maskjax.objectives import teachers
from maskjax.objectives.distillation import Taught
from maskjax.objectives.objective import Batch, valid
from maskjax.systems.system import System
from maskjax.targets import whitened
from maskjax.tokens.patches import per_side

SYSTEM = System(
  name="maskalign",
  family="image",
  paper="arXiv:2211.08887",
  config="configs/image/maskalign.py",
  agrees_with="transformers ViTModel and PyTorch",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskAlign(Taught):
  """The objective of MaskAlign; `maskalign` makes it from hyperparameters.

  Attributes:
    sampler: draws masks where the teacher's attention does not.
    attentive: let it.
    error: of each token, from two [..., T] to [...].
  """

  attentive: bool
  error: Callable[[Array, Array], Array]

  def loss(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """Mean error of the visible patches, while paths are dropped."""
    dropped = self.drop_path_rngs(batch, key)
    return self.judge(params, extra, batch, key, dropped)

  def evaluate(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """Mean error of the visible patches."""
    return self.judge(params, extra, batch, key)

  def judge(
    self,
    params: Any,
    extra: Any,
    batch: Batch,
    key: Array,
    rngs: dict[str, Array] | None = None,
  ) -> Loss:
    """The loss under the masks of a step's key."""
    taught = self.teacher.layers(
      self, extra["teacher"], batch, attention=self.attentive
    )
    mask = self.mask_by(taught, batch, key)
    patches = self.patches(batch)
    own = cast(Array, self.model.apply({"params": params}, patches, mask, rngs=rngs))
    theirs = jnp.stack([self.seen(t, mask) for t in taught.tokens[-len(own) :]])
    # A class token stands first; it counts where both have one.
    count = min(own.shape[2], theirs.shape[2])
    errors = self.error(own[:, :, -count:], whitened(theirs[:, :, -count:]))
    return Loss.of(Mean.of(errors, valid(batch)[:, None]))

  def mask_by(self, taught: Layers, batch: Batch, key: Array) -> Mask:
    """The masks of a batch, given what the teacher says of it."""
    if taught.attention is None:
      return self.mask(batch, key)
    draw = functools.partial(masking.weighted, num_masked=self.num_masked)
    example_keys = keys.example_keys(keys.named(key, "mask"), batch)
    masked = jax.vmap(draw)(example_keys, taught.attention)
    return Mask.exactly(masked, num_masked=self.num_masked)

  def seen(self, tokens: Array, mask: Mask) -> Array:
    """Of tokens of whole images, the class token and those of visible patches."""
    first = tokens.shape[1] - mask.masked.shape[1]
    return jnp.concatenate(
      [tokens[:, :first], mask.take_visible(tokens[:, first:])], axis=1
    )


def maskalign(
  *,
  teacher: Mapping[str, Any] | str,
  image_size: int | Sequence[int] = 224,
  channels: int = 3,
  patch_size: int | Sequence[int] = 16,
  encoder: Mapping[str, Any] | str = "B",
  mask: str | Mapping[str, Any] = "attentive",
  mask_ratio: float = 0.7,
  levels: int = 5,
  beta: float = 1.0,
  drop_path: float = 0.1,
  **network: Unpack[Network],
) -> MaskAlign:
  """Makes MaskAlign from hyperparameters.

  Args:
    teacher: a teacher of `maskjax.objectives.teachers`, with its keywords; it has to
      have layers.
    image_size: side, or (height, width), in pixels.
    channels: values a pixel.
    patch_size: side, or (height, width), in pixels.
    encoder: a size of `maskjax.models.VIT_SIZES`, or `width`, `depth`, `heads`.
    mask: `attentive`, to show what the teacher's class token attends to; or the name of
      a sampler of `maskjax.masking`, or an import path.
    mask_ratio: share of the patches that is masked.
    levels: how many of the teacher's blocks, the last ones, the student aligns to.
    beta: difference at which the error turns from squared to absolute.
    drop_path: drop rate of the last block; earlier blocks' rise from 0 to it.
    **network: see `maskjax.models.Network`.

  Raises:
    UserError: hyperparameters that do not fit each other; names them.

  Example:
    >>> system = maskalign(
    ...   teacher="ema", image_size=8, channels=1, patch_size=2, encoder="Ti"
    ... )
    >>> system.num_masked, system.model.levels
    (12, 5)
  """
  positive(beta=beta)
  patch = per_side(patch_size)
  vit = vit_encoder(
    image_size=image_size,
    patch_size=patch,
    encoder=encoder,
    final_norm=False,
    drop_path=drop_path,
    **network,
  )
  num_patches, attentive = vit.grid[0] * vit.grid[1], mask == "attentive"
  taught_by = resolve.build(teachers, teacher)
  shapes = teachers.layer_shapes(taught_by, vit, patch, channels)
  first = shapes[-1][1] - num_patches
  if first not in (0, 1):
    raise UserError(
      f"teacher sees {shapes[-1][1]} tokens in an image: expected those of "
      f"{num_patches} patches"
    )
  if attentive and not first:
    raise UserError("mask='attentive': expected a teacher with a class token")
  if not 1 <= levels <= len(shapes):
    raise UserError(
      f"levels={levels}: expected at least 1, and no more than the teacher's "
      f"{len(shapes)} blocks"
    )
  return MaskAlign(
    model=AlignedEncoder(
      encoder=vit,
      size=shapes[-1][2],
      teacher_depth=len(shapes),
      levels=levels,
    ),
    sampler=samplers.random if attentive else resolve.bind(samplers, mask),
    num_masked=masking.num_masked(num_patches, mask_ratio),
    attentive=attentive,
    teacher=taught_by,
    error=functools.partial(smooth_l1, beta=beta),
    patch_size=patch,
    channels=channels,
  )
