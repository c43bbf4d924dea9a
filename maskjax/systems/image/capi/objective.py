"""The objective of CAPI, and the function that makes it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Unpack, cast

import jax
import jax.numpy as jnp
from jax import Array

from maskjax import keys
from maskjax.errors import UserError, at_least_one, positive
from maskjax.losses import Loss, Mean, cross_entropy
from maskjax.masking import masking_of
from maskjax.models import CosineHead, Network, check_rotary, decoder_of, vit_encoder
from maskjax.models.initialization import NORMAL
from maskjax.objectives import teachers
from maskjax.objectives.objective import Batch, Step, Variables, valid
from maskjax.objectives.patches import PatchObjective
from maskjax.systems.image.capi.network import (
  ROTARY,
  ClusterPredictor,
  Clusters,
  Predictor,
)
from maskjax.targets import sinkhorn
from maskjax.tokens import patches_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Capi(PatchObjective):
  """The objective of CAPI; `capi` makes it from hyperparameters.

  The two losses share no parameters: gradients reach the clusters through their own
  loss alone, and the student through the other. Clusters are shared out evenly among
  the images that are computed at once: with microbatches, among those of each.

  Attributes:
    teacher: an average of the student's encoder.
    clusters: from the teacher's features to logits of clusters.
    num_predicted: how many masked patches are predicted, drawn at random.
    target_temperature: of the logits that are shared out.
    cluster_temperature: of the logits that learn from that.
    student_temperature: of the predictions.
    sinkhorn_steps: how often columns and rows are normalized.
  """

  teacher: teachers.Ema
  clusters: Clusters
  num_predicted: int
  target_temperature: float
  cluster_temperature: float
  student_temperature: float
  sinkhorn_steps: int

  def init(self, key: Array, batch: Batch) -> Variables:
    """Parameters for images of the batch's shape, and the teacher."""
    params = self.init_params(key, batch)
    teacher = self.teacher.init(params, key, batch)
    width = self.model.encoder.width
    clusters = self.clusters.init(keys.named(key, "clusters"), jnp.zeros((1, width)))
    return Variables({**params, "clusters": clusters["params"]}, {"teacher": teacher})

  def loss(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """Cross-entropy of predicted clusters and of the clusters, with dropped paths."""
    return self._loss(variables, batch, step, self.rngs(batch, step))

  def evaluate(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """Cross-entropy of predicted clusters and of the clusters, by the whole network."""
    return self._loss(variables, batch, step, {})

  def update(
    self, variables: Variables, batch: Batch, step: Step, sums: Mapping[str, Any]
  ) -> Variables:
    """Lets the teacher follow."""
    params, extra = variables
    return Variables(
      params, {"teacher": self.teacher.update(extra["teacher"], params, step)}
    )

  def teacher_variables(self, variables: Variables) -> Variables:
    """The variables with the teacher's encoder instead of the student's."""
    params, extra = variables
    return Variables({**params, **extra["teacher"]}, extra)

  def assignments(self, logits: Array, where: Array) -> Array:
    """Shares of the clusters in each patch, without gradients.

    Args:
      logits: of the teacher's features, [B, N, K].
      where: which images count, bool [B].

    Returns:
      float32 [B, N, K].
    """
    # [B, N, K] -> [N, B, K]
    scores = jax.lax.stop_gradient(logits).swapaxes(0, 1) / self.target_temperature
    return sinkhorn(scores, where, steps=self.sinkhorn_steps).swapaxes(0, 1)

  def _loss(
    self, variables: Variables, batch: Batch, step: Step, rngs: Mapping[str, Array]
  ) -> Loss:
    params, extra = variables
    where = valid(batch)
    features = self.teacher.features(self.features, extra["teacher"], batch)
    logits = self.clusters.apply({"params": params["clusters"]}, features)
    logits = cast(Array, logits)
    targets = self.assignments(logits, where)
    clustering = cross_entropy(logits / self.cluster_temperature, targets)
    example_keys = keys.example_keys(keys.named(step.key, "predicted"), batch)
    mask = self.mask(batch, step).subset(example_keys, self.num_predicted)
    predictions = self.apply(variables, self.patches(batch), mask, rngs=rngs)
    prediction = cross_entropy(
      predictions / self.student_temperature, mask.take_masked(targets)
    )
    each = prediction.mean(axis=1) + clustering.mean(axis=1)
    return Loss.of(
      Mean.of(each, where),
      prediction=Mean.of(prediction, where[:, None]),
      clustering=Mean.of(clustering, where[:, None]),
    )


def capi(
  *,
  image_size: int | Sequence[int] = 224,
  channels: int = 3,
  patch_size: int | Sequence[int] = 14,
  encoder: Mapping[str, Any] | str = "L",
  predictor: Mapping[str, Any] | None = None,
  registers: int = 16,
  teacher: Mapping[str, Any] | str = "ema",
  mask: str | Mapping[str, Any] = "inverse_block",
  mask_ratio: float = 0.65,
  predicted_ratio: float = 0.05,
  num_clusters: int = 16384,
  target_temperature: float = 0.06,
  cluster_temperature: float = 0.12,
  student_temperature: float = 0.12,
  sinkhorn_steps: int = 3,
  drop_path: float = 0.2,
  **network: Unpack[Network],
) -> Capi:
  """Makes CAPI from hyperparameters.

  Args:
    image_size: side, or (height, width), in pixels.
    channels: values a pixel.
    patch_size: side, or (height, width), in pixels.
    encoder: a size of `maskjax.models.VIT_SIZES`, or `width`, `depth`, `heads`.
    predictor: `width`, `depth`, `heads`; when None as the encoder, with 12 blocks.
    registers: learned tokens beside the patches, at positions along the edge of the
      box around those that are visible.
    teacher: `ema` of `maskjax.objectives.teachers`, with its keywords; the paper's
      `decay` falls from 1 to 0.999 while the learning rate rises, and rises to 1 as
      that falls.
    mask: name of a sampler of `maskjax.masking`, or an import path.
    mask_ratio: share of the patches that is masked.
    predicted_ratio: share of the masked patches that is predicted.
    num_clusters: number of clusters, in the paper as many as images in a batch.
    target_temperature: of the logits that are shared out.
    cluster_temperature: of the logits that learn from that.
    student_temperature: of the predictions.
    sinkhorn_steps: how often clusters and images are normalized.
    drop_path: drop rate of all blocks of the student, and of the predictor.
    **network: see `maskjax.models.Network`; `norm_epsilon` is 1e-5 when left out.

  Raises:
    UserError: a shape, a temperature, a count or a ratio out of its range, or another
      teacher; names it.

  Example:
    >>> capi(image_size=28, patch_size=4, encoder="Ti").num_predicted
    1
  """
  network = {"norm_epsilon": 1e-5, "initialization": "capi", **network}
  patches = patches_of(image_size, patch_size, channels=channels)
  vit = vit_encoder(
    grid=patches.grid,
    encoder=encoder,
    positions="rotary",
    class_token=False,
    registers=registers,
    drop_path=drop_path,
    drop_path_rises=False,
    norm="rms",
    final_affine=False,
    use_bias=False,
    context_norm=False,
    rotary=ROTARY,
    **network,
  )
  positive(
    target_temperature=target_temperature,
    cluster_temperature=cluster_temperature,
    student_temperature=student_temperature,
  )
  at_least_one(num_clusters=num_clusters, sinkhorn_steps=sinkhorn_steps)
  if not 0 < predicted_ratio <= 1:
    raise UserError(
      f"predicted_ratio={predicted_ratio}: expected above 0 and at most 1"
    )
  policy = masking_of(patches.grid, mask, mask_ratio, rounding="down")
  shape = {"width": vit.width, "depth": 12, "heads": vit.heads, **(predictor or {})}
  built = decoder_of(vit, shape, kind=Predictor, role="predictor", final_affine=False)
  check_rotary("predictor", width=built.width, heads=built.heads, axes=len(built.grid))
  return Capi(
    model=ClusterPredictor(
      encoder=vit,
      predictor=built,
      head=CosineHead(size=num_clusters, kernel_init=NORMAL),
    ),
    patches=patches,
    masking=policy,
    teacher=teachers.build_ema(teacher, parts=("encoder",)),
    clusters=Clusters(num_clusters=num_clusters),
    num_predicted=max(1, int(policy.num_masked * predicted_ratio)),
    target_temperature=target_temperature,
    cluster_temperature=cluster_temperature,
    student_temperature=student_temperature,
    sinkhorn_steps=sinkhorn_steps,
  )
