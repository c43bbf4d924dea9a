"""dBOT: exploring target representations for masked autoencoders.

MAE whose decoder predicts a teacher's features of the whole image in place of pixels,
and whose first teacher is a random network, the student as it begins: after each stage
the student becomes the teacher, and a new student begins at random. The features are
those of the last block, before the last normalization, the class token's among them,
each token minus its mean over its std; they are compared by a smooth L1 error
(https://arxiv.org/abs/2209.03917).

With CLIP as teacher the student is symmetric, as in BEiT: mask tokens inside the
encoder, a linear layer in place of the decoder, and CLIP's features of the masked
patches as they are, compared by their cosine. Config: `configs/image/dbot.py`.
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
from maskjax.errors import UserError, did_you_mean, positive
from maskjax.losses import Loss, Mean, cosine_error, smooth_l1
from maskjax.masking import Mask, masking_of
from maskjax.models import (
  MaskedAutoencoder,
  MaskedEncoder,
  Network,
  decoder_of,
  vit_encoder,
)
from maskjax.models.decoder import TokenDecoder
from maskjax.models.transformer import dense_like
from maskjax.objectives import teachers
from maskjax.objectives.objective import Batch, Step, Variables, valid
from maskjax.objectives.patches import PatchObjective
from maskjax.objectives.teachers import Bootstrap, Teacher
from maskjax.systems.system import System
from maskjax.targets import normalized_pixels
from maskjax.tokens import patches_of, sincos

SYSTEM = System(
  name="dbot",
  family="image",
  paper="arXiv:2209.03917",
  config="configs/image/dbot.py",
  agrees_with="transformers ViTModel and PyTorch",
  differs=(
    "The bias of the patch embedding is drawn anew with a new student; the authors' "
    "stays.",
    "The first teacher of a ViT-L or ViT-H has all of its blocks; the authors' has "
    "none.",
    "The symmetric student's masks have one number of patches; the authors' may have "
    "a few fewer.",
  ),
)

TARGETS = ("block", "features")
ERRORS = ("smooth_l1", "cosine")


class ClassTokenDecoder(TokenDecoder, kw_only=True):
  """MAE's decoder, but for a prediction of the class token before those of patches.

  Attributes:
    size: length T of a prediction.
  """

  size: int

  @nn.compact
  def __call__(self, encoded: Array, mask: Mask, visible_too: bool = False) -> Array:
    """Predicts the class token and the masked patches.

    Args:
      encoded: [B, 1 + V, E] from the encoder.
      mask: the mask under which it was encoded.
      visible_too: predict the visible patches as well.

    Returns:
      float32 [B, 1 + M, T], or [B, 1 + N, T] when `visible_too`, in order of position.
    """
    table = jnp.asarray(sincos(self.grid, self.width), self.dtype)
    x = dense_like(self, self.width, name="embed")(encoded)
    of_class, visible = x[:, :1], x[:, 1:] + table[mask.visible_ids]
    masked = self.mask_tokens() + table[mask.masked_ids]
    # Attention does not depend on the order of tokens: what is predicted stands last,
    # and no other is computed by the last block. [B, 1 + V + M, D]
    x = jnp.concatenate([visible, of_class, masked], axis=1)
    num_visible, num_masked = visible.shape[1], masked.shape[1]
    x = self.transform(x, None if visible_too else 1 + num_masked)
    x = self.predict(x, self.size)
    if not visible_too:
      return x
    of_class = x[:, num_visible : num_visible + 1]
    patches = mask.restore(x[:, :num_visible], x[:, num_visible + 1 :])
    return jnp.concatenate([of_class, patches], axis=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DBot(PatchObjective):
  """The objective of dBOT; `dbot` makes it from hyperparameters.

  Attributes:
    teacher: see `maskjax.objectives.teachers`.
    target: what is predicted of the teacher, see `dbot`.
    error: of each token, from two [B, M, T] to [B, M].
  """

  teacher: Teacher
  target: str
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
    """Mean error of the predicted tokens, with dropped paths."""
    return self._loss(variables, batch, step, self.rngs(batch, step))

  def evaluate(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """Mean error of the predicted tokens, by the whole network."""
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

  def taught(self, variables: Variables, batch: Batch) -> Array:
    """What the teacher has of whole images: [B, N, T].

    Of a last block [B, 1 + N, T], the class token first, where the teacher has one.
    """
    state = variables.extra["teacher"]
    if self.target == "features":
      return self.teacher.features(self.features, state, batch)
    return normalized_pixels(self.teacher.layers(self, state, batch).tokens[-1])

  def _loss(
    self, variables: Variables, batch: Batch, step: Step, rngs: Mapping[str, Array]
  ) -> Loss:
    mask = self.mask(batch, step)
    predictions = self.apply(variables, self.patches(batch), mask, rngs=rngs)
    taught = self.taught(variables, batch)
    first = predictions.shape[1] - mask.masked_ids.shape[1]
    of_patches = mask.take_masked(taught[:, -self.patches.length :])
    targets = jnp.concatenate([taught[:, :first], of_patches], axis=1)
    return Loss.of(Mean.of(self.error(predictions, targets), valid(batch)[:, None]))


def dbot(
  *,
  teacher: Mapping[str, Any] | str,
  image_size: int | Sequence[int] = 224,
  channels: int = 3,
  patch_size: int | Sequence[int] = 16,
  encoder: Mapping[str, Any] | str = "B",
  masked_patches: str = "dropped",
  positions: str = "sincos",
  key_bias: bool = True,
  layer_scale: float | None = None,
  decoder: Mapping[str, Any] | None = None,
  mask: str | Mapping[str, Any] = "random",
  mask_ratio: float = 0.75,
  target: str = "block",
  error: str = "smooth_l1",
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
    masked_patches: `dropped`, for a decoder that predicts them, or `token`, for mask
      tokens in the encoder and a linear layer.
    positions: see `maskjax.models.VisionEncoder`.
    key_bias: see `maskjax.models.BlockOptions`.
    layer_scale: see `maskjax.models.BlockOptions`.
    decoder: `width`, `depth`, `heads`; 512, 8 and 16 when None.
    mask: name of a sampler of `maskjax.masking`, or an import path.
    mask_ratio: share of the patches that is masked.
    target: `block`, the tokens of the teacher's last block before its last
      normalization, each normalized here, the class token's too where there is a
      decoder; or `features`, what the teacher has as features of patches, as they are.
    error: `smooth_l1`, or `cosine`, one less the cosine.
    beta: difference at which `smooth_l1` turns from squared to absolute.
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
    >>> system.model.decoder.size
    192
  """
  positive(beta=beta)
  known = (
    ("masked_patches", masked_patches, ("dropped", "token")),
    ("target", target, TARGETS),
    ("error", error, ERRORS),
  )
  for key, value, names in known:
    if value not in names:
      raise UserError(f"{key}={value!r}: {did_you_mean(str(value), names)}")
  symmetric = masked_patches == "token"
  if symmetric and decoder is not None:
    raise UserError(
      "masked_patches='token': expected no decoder, since a linear layer predicts"
    )
  patches = patches_of(image_size, patch_size, channels=channels)
  network = {"initialization": "beit" if symmetric else "mae", **network}
  vit = vit_encoder(
    grid=patches.grid,
    encoder=encoder,
    masked_patches=masked_patches,
    positions=positions,
    key_bias=key_bias,
    layer_scale=layer_scale,
    drop_path=drop_path,
    **network,
  )
  built = teachers.build(teacher)
  if target == "features":
    size, first = teachers.features_width(built, vit, patches), 0
  else:
    *_, (_, count, size) = teachers.layer_shapes(built, vit, patches)
    first = count - patches.length
    if first not in (0, 1):
      raise UserError(
        f"teacher sees {count} tokens in an image: expected those of {patches.length} "
        "patches"
      )
  model: Any
  if symmetric:
    model = MaskedEncoder(encoder=vit, size=size)
  elif first:
    predicting = decoder_of(vit, decoder, kind=ClassTokenDecoder, size=size)
    model = MaskedAutoencoder(encoder=vit, decoder=predicting)
  else:
    model = MaskedAutoencoder(
      encoder=vit, decoder=decoder_of(vit, decoder, patch_dim=size)
    )
  return DBot(
    model=model,
    patches=patches,
    masking=masking_of(patches.grid, mask, mask_ratio),
    teacher=built,
    target=target,
    error=cosine_error
    if error == "cosine"
    else functools.partial(smooth_l1, beta=beta),
  )
