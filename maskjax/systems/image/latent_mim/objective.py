"""The objective of Latent MIM, and the function that makes it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Unpack, cast

import jax.numpy as jnp
from jax import Array

from maskjax import schedules
from maskjax.errors import UserError
from maskjax.losses import Loss, Mean, cross_entropy
from maskjax.masking import Mask, masking_of
from maskjax.models import Network, decoder_of, vit_encoder
from maskjax.objectives import teachers
from maskjax.objectives.objective import Batch, Step, Variables, valid
from maskjax.objectives.patches import PatchObjective
from maskjax.systems.image.latent_mim.network import (
  CueDecoder,
  LatentMaskedModel,
  NormedProjector,
)
from maskjax.targets import unit
from maskjax.tokens import patches_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentMim(PatchObjective):
  """The objective of Latent MIM; `latent_mim` makes it from hyperparameters.

  All terms are of single images, so that no loss depends on what else is in a batch:
  the negatives are the other patches of the same image, and where the authors square
  the distance of a batch's mean similarity, here each image's own is squared.

  Attributes:
    teacher: an average of the student's encoder and projector.
    temperature: of the discrimination.
    similarity: what the mean cosine among an image's features should be, first and
      last.
    similarity_weight: of the squared distance from that.
  """

  teacher: teachers.Ema
  temperature: float
  similarity: tuple[float, float]
  similarity_weight: float

  def init(self, key: Array, batch: Batch) -> Variables:
    """Parameters for images of the batch's shape, and the teacher."""
    params = self.init_params(key, batch)
    return Variables(params, {"teacher": self.teacher.init(params, key, batch)})

  def loss(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """Discrimination of patches within each image, and its features' similarity."""
    mask = self.mask(batch, step)
    visible, predictions = self.apply(variables, self.patches(batch), mask)
    targets = self.teacher_features(variables, batch, mask)
    errors = discrimination(predictions, targets, temperature=self.temperature)
    goal = schedules.cosine(*self.similarity, step.progress)
    cosines = {
      "predicted_similarity": mean_cosine(predictions),
      "visible_similarity": mean_cosine(visible),
    }
    distance = sum(jnp.square(cosine - goal) for cosine in cosines.values())
    each = errors.mean(axis=1) + self.similarity_weight * distance
    where = valid(batch)
    metrics = {name: Mean.of(cosine, where) for name, cosine in cosines.items()}
    return Loss.of(Mean.of(each, where), **metrics)

  def update(
    self, variables: Variables, batch: Batch, step: Step, sums: Mapping[str, Any]
  ) -> Variables:
    """Lets the teacher follow."""
    params, extra = variables
    return Variables(
      params, {"teacher": self.teacher.update(extra["teacher"], params, step)}
    )

  def teacher_variables(self, variables: Variables) -> Variables:
    """The variables with the teacher's encoder and projector in the student's place."""
    params, extra = variables
    return Variables({**params, **extra["teacher"]}, extra)

  def teacher_features(self, variables: Variables, batch: Batch, mask: Mask) -> Array:
    """The teacher's features of the masked patches, which alone it sees: [B, M, D]."""

    def features(variables: Variables, batch: Batch) -> Array:
      patches, inverse = self.patches(batch), mask.inverse()
      tokens = self.apply(variables, patches, inverse, method="project")
      seen = self.model.encoder.patch_tokens(cast(Array, tokens))
      unseen = jnp.zeros((*mask.visible_ids.shape, seen.shape[-1]), seen.dtype)
      return inverse.restore(seen, unseen)

    taught = variables.extra["teacher"]
    return mask.take_masked(self.teacher.features(features, taught, batch))


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


def mean_cosine(features: Array) -> Array:
  """The mean cosine of all pairs of an image's tokens: [B, M, D] to float32 [B].

  Example:
    >>> mean_cosine(jnp.array([[[2.0, 0.0], [0.0, 3.0]]])).tolist()
    [0.5]
  """
  return jnp.square(unit(features).mean(axis=1)).sum(axis=-1)


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
    teacher: `ema` of `maskjax.objectives.teachers`, with its keywords; the paper's
      `decay` rises from 0.99 to 1 along a cosine.
    mask: name of a sampler of `maskjax.masking`, or an import path.
    mask_ratio: share of the patches that is masked; the paper's leaves 20 visible.
    temperature: of the discrimination.
    similarity: mean cosine that an image's features should have, at first and at last;
      in between along a cosine over the run.
    similarity_weight: of the squared distance from that; 0 for none.
    **network: see `maskjax.models.Network`.

  Raises:
    UserError: a shape, a temperature, a weight or a ratio out of its range, or another
      teacher; names it.

  Example:
    >>> latent_mim(image_size=28, patch_size=4, encoder="Ti").patches.grid
    (7, 7)
  """
  if temperature <= 0 or similarity_weight < 0:
    raise UserError(
      f"temperature={temperature}, similarity_weight={similarity_weight}: expected "
      "above 0, and at least 0"
    )
  if len(similarity) != 2 or not all(-1 <= value <= 1 for value in similarity):
    raise UserError(f"similarity={tuple(similarity)}: expected two cosines")
  patches = patches_of(image_size, patch_size, channels=channels)
  network = {"initialization": "latent_mim", **network}
  vit = vit_encoder(
    grid=patches.grid, encoder=encoder, positions="sincos_spread", **network
  )
  policy = masking_of(patches.grid, mask, mask_ratio, rounding="down")
  if policy.num_masked < 2:
    raise UserError(f"mask_ratio={mask_ratio}: expected at least 2 masked patches")
  layers = {"hidden": 4096, "depth": 3, **(projector or {})}
  if set(layers) != {"hidden", "depth"} or min(layers.values()) < 1:
    raise UserError(f"projector={layers}: expected `hidden` and `depth`, each above 0")
  first, last = similarity
  return LatentMim(
    model=LatentMaskedModel(
      encoder=vit,
      projector=NormedProjector(**layers, dtype=vit.dtype),
      decoder=decoder_of(
        vit, {"depth": 3, **(decoder or {})}, kind=CueDecoder, size=vit.width
      ),
    ),
    patches=patches,
    masking=policy,
    teacher=teachers.build_ema(teacher, parts=("encoder", "projector")),
    temperature=temperature,
    similarity=(first, last),
    similarity_weight=similarity_weight,
  )
