"""MaskAlign: stare at what you see, masked image modeling without reconstruction.

Masks the patches of which a teacher's class token takes less, and predicts nothing of
them: the student's features of the visible patches have to match the teacher's features
of the same patches within the whole image. Learned weights mix the student's blocks for
each of the teacher's last five, whose tokens are normalized and compared by a smooth L1
error (https://arxiv.org/abs/2211.08887). Config: `configs/image/maskalign.py`.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from maskjax import keys
from maskjax.errors import UserError, positive
from maskjax.losses import Loss, Mean, smooth_l1
from maskjax.masking import Mask, highest, masking_of
from maskjax.models import Layers, Network, VisionEncoder, vit_encoder
from maskjax.models.transformer import LayerNorm, dense_like
from maskjax.objectives import teachers
from maskjax.objectives.objective import Batch, Step, Variables, valid
from maskjax.objectives.patches import PatchObjective
from maskjax.objectives.teachers import Teacher
from maskjax.systems.system import System
from maskjax.targets import whitened
from maskjax.tokens import patches_of

SYSTEM = System(
  name="maskalign",
  family="image",
  paper="arXiv:2211.08887",
  config="configs/image/maskalign.py",
  agrees_with="transformers ViTModel and PyTorch",
  differs=(
    "The error is the paper's smooth L1; the authors' code doubles it, which AdamW "
    "does not see.",
    "Blocks that are not aligned have no weights and heads; the authors' have unused "
    "ones.",
  ),
)


class AlignedEncoder(nn.Module):
  """An encoder of visible patches, and dynamic alignment (section 3.3 of the paper).

  For each of the teacher's last blocks, learned weights mix the outputs of all blocks
  of the encoder, and a linear layer maps them to the teacher's width.

  Attributes:
    encoder: without a last normalization.
    size: width T of the teacher.
    teacher_depth: number of the teacher's blocks.
    levels: how many of them, the last ones, are aligned: K.
  """

  encoder: VisionEncoder
  size: int
  teacher_depth: int
  levels: int

  @nn.compact
  def __call__(self, patches: Array, mask: Mask) -> Array:
    """Predicts the teacher's tokens of the visible patches of [B, N, P].

    Returns:
      float32 [K, B, 1 + V, T], the class token first where there is one.
    """
    tokens = jnp.stack(self.encoder.every_block(patches, mask))  # [L, B, 1 + V, D]
    weights = self.param("weights", self.first_weights)
    mixed = jnp.einsum("kl,lbnd->kbnd", weights.astype(tokens.dtype), tokens)
    heads = [
      dense_like(self.encoder, self.size, "head", name=f"head_{k}")(mixed[k])
      for k in range(self.levels)
    ]
    return jnp.stack(heads).astype(jnp.float32)

  def first_weights(self, key: Array) -> Array:
    """Each block for its counterpart, if there are as many; else means: [K, L]."""
    del key
    depth = self.encoder.depth
    if depth != self.teacher_depth:
      return jnp.full((self.levels, depth), 1 / depth)
    return (jnp.eye(depth) + 0.01)[-self.levels :]

  @nn.compact
  def encode(self, patches: Array) -> Array:
    """Encodes whole images, each token normalized: [B, N, P] to [B, 1 + N, D]."""
    norm = LayerNorm(
      epsilon=self.encoder.norm_epsilon,
      use_bias=False,
      use_scale=False,
      dtype=self.encoder.dtype,
    )
    return norm(self.encoder(patches))


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskAlign(PatchObjective):
  """The objective of MaskAlign; `maskalign` makes it from hyperparameters.

  Attributes:
    teacher: see `maskjax.objectives.teachers`.
    attentive: draw the visible patches by the teacher's attention, as many as `masking`
      leaves visible.
    error: of each token, from two [..., T] to [...].
  """

  teacher: Teacher
  attentive: bool
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
    """Mean error of the visible patches, with dropped paths."""
    return self._loss(variables, batch, step, self.rngs(batch, step))

  def evaluate(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """Mean error of the visible patches, by the whole network."""
    return self._loss(variables, batch, step, {})

  def update(
    self, variables: Variables, batch: Batch, step: Step, sums: Mapping[str, Any]
  ) -> Variables:
    """Updates the teacher, where it is an average."""
    params, extra = variables
    teacher = self.teacher.update(extra["teacher"], params, step)
    return Variables(params, {**extra, "teacher": teacher})

  def attentive_mask(self, taught: Layers, batch: Batch, step: Step) -> Mask:
    """The masks of a batch, given the teacher's attention where it is needed."""
    if taught.attention is None:
      return self.mask(batch, step)
    assert self.masking is not None
    num_masked = self.masking.num_masked
    example_keys = keys.example_keys(keys.named(step.key, "mask"), batch)
    draw = functools.partial(weighted, num_masked=num_masked)
    masked = jax.vmap(draw)(example_keys, taught.attention)
    return Mask.exactly(masked, num_masked=num_masked)

  def _loss(
    self, variables: Variables, batch: Batch, step: Step, rngs: Mapping[str, Array]
  ) -> Loss:
    taught = self.teacher.layers(
      self, variables.extra["teacher"], batch, attention=self.attentive
    )
    mask = self.attentive_mask(taught, batch, step)
    own = self.apply(variables, self.patches(batch), mask, rngs=rngs)
    last = taught.tokens[-len(own) :]
    targets = jnp.stack([visible_tokens(tokens, mask) for tokens in last])
    # A class token stands first; it counts where both have one.
    count = min(own.shape[2], targets.shape[2])
    targets = whitened(targets[:, :, -count:], epsilon=1e-5)
    errors = self.error(own[:, :, -count:], targets)
    return Loss.of(Mean.of(errors, valid(batch)[:, None]))


def visible_tokens(tokens: Array, mask: Mask) -> Array:
  """Of tokens of whole images, the class token and those of visible patches.

  Args:
    tokens: [B, 1 + N, D], or [B, N, D] without a class token.
    mask: the masks.

  Returns:
    [B, 1 + V, D], or [B, V, D].
  """
  first = tokens.shape[1] - mask.masked.shape[1]
  visible = mask.take_visible(tokens[:, first:])
  return jnp.concatenate([tokens[:, :first], visible], axis=1)


def weighted(key: Array, weights: Array, num_masked: int) -> Array:
  """Masks all tokens except some drawn by weight, without replacement.

  With a teacher's attention as weights, this is attentive masking (section 3.2 of the
  paper). The tokens with the largest log weight plus Gumbel noise are such a draw
  (https://arxiv.org/abs/1903.06059).

  Args:
    key: the example's key.
    weights: [N], of one example's tokens, none negative.
    num_masked: how many tokens to mask.

  Returns:
    bool [N], exactly `num_masked` True.

  Example:
    >>> weighted(jax.random.key(0), jnp.array([0.0, 1.0, 0.0, 1.0]), 2).tolist()
    [True, False, True, False]
  """
  noise = jax.random.gumbel(key, weights.shape)
  return ~highest(jnp.log(weights) + noise, weights.shape[0] - num_masked)


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
    mask: `attentive`, to leave visible what the teacher's class token attends to; or
      the name of a sampler of `maskjax.masking`, or an import path.
    mask_ratio: share of the patches that is masked.
    levels: how many of the teacher's blocks, the last ones, the student aligns to.
    beta: difference at which the error turns from squared to absolute.
    drop_path: drop rate of the last block; earlier blocks' rise from 0 to it.
    **network: see `maskjax.models.Network`.

  Raises:
    UserError: a size, a ratio, a number of blocks or a teacher that does not fit; names
      it.

  Example:
    >>> system = maskalign(
    ...   teacher="ema", image_size=8, channels=1, patch_size=2, encoder="Ti"
    ... )
    >>> system.masking.num_masked, system.model.levels
    (12, 5)
  """
  positive(beta=beta)
  patches = patches_of(image_size, patch_size, channels=channels)
  network = {"initialization": "mae", **network}
  vit = vit_encoder(
    grid=patches.grid,
    encoder=encoder,
    final_norm=False,
    drop_path=drop_path,
    **network,
  )
  attentive = mask == "attentive"
  built = teachers.build(teacher)
  shapes = teachers.layer_shapes(built, vit, patches)
  first = shapes[-1][1] - patches.length
  if first not in (0, 1):
    raise UserError(
      f"teacher sees {shapes[-1][1]} tokens in an image: expected those of "
      f"{patches.length} patches"
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
    patches=patches,
    masking=masking_of(patches.grid, "random" if attentive else mask, mask_ratio),
    teacher=built,
    attentive=attentive,
    error=functools.partial(smooth_l1, beta=beta),
  )
