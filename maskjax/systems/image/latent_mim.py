"""Latent MIM: latent masked image modeling for visual representations.

Masks nine tenths of an image's patches and has a decoder that attends to the codes of
the visible ones predict those of the masked ones, as an average of the encoder over
past steps has them that sees the masked patches alone. Each prediction has to find its
own target among all of its image, and codes of an image must be neither too alike nor
too different. The paper's gaps between patches are a transform of the data,
`maskjax.data.transforms.spaced_patches` (https://arxiv.org/abs/2407.15837). Config:
`configs/image/latent_mim.py`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Unpack, cast

import jax.numpy as jnp
import optax
from jax import Array

from maskjax import resolve
from maskjax.errors import UserError
from maskjax.losses import Loss, Mean, cross_entropy
from maskjax.masking import Mask
from maskjax.models import (
  CueDecoder,
  LatentMaskedModel,
  Network,
  NormedProjector,
  decoder_of,
  vit_encoder,
)
from maskjax.objectives import teachers
from maskjax.objectives.distillation import Taught
from maskjax.objectives.images import masks
from maskjax.objectives.objective import Batch, Variables, valid
from maskjax.systems.system import System
from maskjax.targets import unit

SYSTEM = System(
  name="latent_mim",
  family="image",
  paper="arXiv:2407.15837",
  config="configs/image/latent_mim.py",
  agrees_with="equations in NumPy",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentMim(Taught):
  """Tells the codes of an image's masked patches from each other.

  All terms are of single images, so that no loss depends on what else is in a batch:
  the negatives are the other patches of the same image, and where the authors square
  how far the mean similarity of a batch is off, here each image's own is squared.

  Attributes:
    teacher: sees the masked patches.
    temperature: of the discrimination.
    similarity: what the mean cosine among an image's codes should be, first and last.
    similarity_weight: of the squared distance from that.
    num_steps: steps from the first to the last; 0 stays at the first.
  """

  temperature: float
  similarity: tuple[float, float]
  similarity_weight: float
  num_steps: int

  def init(self, key: Array, batch: Batch) -> Variables:
    """Parameters for images of the batch's shape, the teacher, and the steps done."""
    params = self.init_model(key, batch)
    taught = self.init_teacher(params, key, batch)
    return Variables(params, {"teacher": taught, "step": jnp.int32(0)})

  def loss(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """Discrimination of patches within each image, and its codes' similarity."""
    patches, mask = self.patches(batch), self.mask(batch, key)
    visible, predictions = cast(
      tuple[Array, Array], self.model.apply({"params": params}, patches, mask)
    )
    targets = self.targets_of(extra, batch, mask)
    errors = discrimination(predictions, targets, temperature=self.temperature)
    first, last = self.similarity
    fall = optax.cosine_decay_schedule(1.0, max(1, self.num_steps))
    left = fall(extra["step"]) if self.num_steps else 1.0
    goal = last + (first - last) * left
    alike = {"predicted": mean_cosine(predictions), "visible": mean_cosine(visible)}
    off = sum(jnp.square(cosine - goal) for cosine in alike.values())
    each = errors.mean(axis=1) + self.similarity_weight * off
    where = valid(batch)
    similarities = {f"{k}_similarity": Mean.of(v, where) for k, v in alike.items()}
    return Loss.of(Mean.of(each, where), **similarities)

  def targets_of(self, extra: Any, batch: Batch, mask: Mask) -> Array:
    """The teacher's codes of the masked patches: [B, M, D]."""

    def codes(params: Any, batch: Batch) -> Array:
      patches, inverse = self.patches(batch), mask.inverse()
      tokens = self.model.apply({"params": params}, patches, inverse, method="codes")
      seen = self.model.encoder.patch_tokens(cast(Array, tokens))
      unseen = jnp.zeros((*mask.visible_ids.shape, seen.shape[-1]), seen.dtype)
      return inverse.restore(seen, unseen)

    return mask.take_masked(self.teacher.features(codes, extra["teacher"], batch))


def discrimination(predictions: Array, targets: Array, *, temperature: float) -> Array:
  """How badly each prediction finds its own target among those of its image.

  Predictions are normalized channel by channel over the image's patches, so that what
  they share cannot help. The cross-entropy of the cosines over the temperature is
  multiplied by twice that, as in MoCo v3 (https://arxiv.org/abs/2104.02057).

  Args:
    predictions: [B, M, D] with M of at least 2.
    targets: [B, M, D].
    temperature: divides the cosines.

  Returns:
    float32 [B, M].
  """
  predictions = predictions.astype(jnp.float32)
  mean = predictions.mean(axis=1, keepdims=True)
  std = predictions.std(axis=1, keepdims=True, ddof=1)
  predictions = (predictions - mean) / (std + 1e-4)
  cosines = jnp.einsum("bmd,bnd->bmn", unit(predictions), unit(targets))
  own = jnp.broadcast_to(jnp.eye(targets.shape[1]), cosines.shape)
  return 2 * temperature * cross_entropy(cosines / temperature, own)


def mean_cosine(codes: Array) -> Array:
  """The mean cosine of all pairs of an image's codes: [B, M, D] to float32 [B]."""
  return jnp.square(unit(codes).mean(axis=1)).sum(axis=-1)


def latent_mim(
  *,
  image_size: int | Sequence[int] = 224,
  channels: int = 3,
  patch_size: int | Sequence[int] = 16,
  encoder: Mapping[str, Any] | str = "B",
  projector: Mapping[str, Any] | None = None,
  decoder: Mapping[str, Any] | None = None,
  teacher: Mapping[str, Any] | str = "ema",
  mask: str | Mapping[str, Any] = "random",
  mask_ratio: float = 0.9,
  temperature: float = 0.2,
  similarity: Sequence[float] = (0.75, 0.25),
  similarity_weight: float = 0.1,
  num_steps: int = 0,
  **network: Unpack[Network],
) -> LatentMim:
  """Makes Latent MIM from hyperparameters.

  Args:
    image_size: side, or (height, width), in pixels; the paper's patches do not touch,
      see `maskjax.data.transforms.spaced_patches`.
    channels: values a pixel.
    patch_size: side, or (height, width), in pixels.
    encoder: a size of `maskjax.models.VIT_SIZES`, or `width`, `depth`, `heads`.
    projector: `hidden` width and `depth`; 4096 and 3 when None.
    decoder: `width`, `depth`, `heads`; 512, 3 and 16 when None.
    teacher: see `maskjax.objectives.teachers`; the paper's `decay` of `ema` rises from
      0.99 to 1 along a cosine.
    mask: name of a sampler of `maskjax.masking`, or an import path.
    mask_ratio: share of the patches that is masked.
    temperature: of the discrimination.
    similarity: mean cosine that an image's codes should have, at first and at last.
    similarity_weight: of the squared distance from that; 0 for none.
    num_steps: steps over which `similarity` falls along a cosine; the run's.
    **network: see `maskjax.models.Network`.

  Raises:
    UserError: hyperparameters that do not fit each other; names them.

  Example:
    >>> latent_mim(image_size=28, patch_size=4, encoder="Ti").grid
    (7, 7)
  """
  if temperature <= 0 or similarity_weight < 0:
    raise UserError(
      f"temperature={temperature}, similarity_weight={similarity_weight}: expected "
      "above 0, and at least 0"
    )
  if len(similarity) != 2 or not all(-1 <= value <= 1 for value in similarity):
    raise UserError(f"similarity={tuple(similarity)}: expected two cosines")
  vit = vit_encoder(
    image_size=image_size,
    patch_size=patch_size,
    encoder=encoder,
    **network,
  )
  images = masks(vit, mask, mask_ratio, patch_size=patch_size, channels=channels)
  num_masked = images["num_masked"]
  if num_masked < 2:
    raise UserError(f"mask_ratio={mask_ratio}: expected at least 2 masked patches")
  layers = {"hidden": 4096, "depth": 3, **(projector or {})}
  if set(layers) != {"hidden", "depth"} or min(layers.values()) < 1:
    raise UserError(f"projector={layers}: expected `hidden` and `depth`, each above 0")
  first, last = similarity
  return LatentMim(
    model=LatentMaskedModel(
      encoder=vit,
      projector=NormedProjector(
        **layers, norm_epsilon=vit.norm_epsilon, dtype=vit.dtype
      ),
      decoder=decoder_of(
        vit,
        {"depth": 3, **(decoder or {})},
        kind=CueDecoder,
        size=vit.width,
      ),
    ),
    **images,
    teacher=resolve.build(teachers, teacher),
    temperature=temperature,
    similarity=(first, last),
    similarity_weight=similarity_weight,
    num_steps=num_steps,
    followed=("encoder", "projector"),
  )
