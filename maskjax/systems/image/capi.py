"""CAPI: cluster and predict latent patches.

Shows one block of an image to a ViT, and has a predictor that attends to its codes
alone name the clusters of masked patches' codes, as an average of the ViT over past
steps has them. The clusters are learned on the way, from the teacher's codes and with a
learning rate of their own; Sinkhorn and Knopp's iteration shares them out evenly at
each place of the grid, so that no cluster can stand for a place
(https://arxiv.org/abs/2502.08769). Config: `configs/image/capi.py`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Unpack, cast

import jax
import jax.numpy as jnp
from jax import Array

from maskjax import keys, resolve
from maskjax.errors import UserError, at_least_one, positive
from maskjax.losses import Loss, Mean, cross_entropy
from maskjax.models import (
  ClusterPredictor,
  Clusters,
  CosineHead,
  Network,
  Predictor,
  check_rotary,
  decoder_of,
  vit_encoder,
)
from maskjax.objectives import teachers
from maskjax.objectives.distillation import Taught
from maskjax.objectives.images import masks
from maskjax.objectives.objective import Batch, Variables, valid
from maskjax.systems.system import System
from maskjax.targets import sinkhorn

SYSTEM = System(
  name="capi",
  family="image",
  paper="arXiv:2502.08769",
  config="configs/image/capi.py",
  agrees_with="equations in NumPy",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Capi(Taught):
  """Predicts the clusters of a teacher's codes, and learns the clusters.

  The two losses share no parameters: gradients reach the clusters through their own
  loss alone, and the student through the other. Clusters are shared out evenly among
  the images that are computed at once: with microbatches, among those of each.

  Attributes:
    clusters: says how near the teacher's codes are to clusters.
    num_predicted: how many masked patches are predicted, drawn at random.
    target_temperature: of the logits that are shared out.
    cluster_temperature: of the logits that learn from that.
    student_temperature: of the predictions.
    sinkhorn_steps: how often columns and rows are normalized.
  """

  clusters: Clusters
  num_predicted: int
  target_temperature: float
  cluster_temperature: float
  student_temperature: float
  sinkhorn_steps: int

  def init(self, key: Array, batch: Batch) -> Variables:
    """Parameters for images of the batch's shape, and the teacher."""
    params = self.init_model(key, batch)
    taught = self.init_teacher(params, key, batch)

    def codes(batch: Batch) -> Array:
      return self.teacher.features(self.features, taught, batch)

    width = jax.eval_shape(codes, batch).shape[-1]
    clusters = self.clusters.init(keys.named(key, "clusters"), jnp.zeros((1, width)))
    return Variables({**params, "clusters": clusters["params"]}, {"teacher": taught})

  def loss(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """As `evaluate`, with dropped paths."""
    dropped = self.drop_path_rngs(batch, key)
    return self.loss_under(params, extra, batch, key, dropped)

  def evaluate(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """Cross-entropy of predicted clusters, and that of the clusters themselves."""
    return self.loss_under(params, extra, batch, key, {})

  def loss_under(
    self, params: Any, extra: Any, batch: Batch, key: Array, rngs: Mapping[str, Array]
  ) -> Loss:
    """The loss under given random numbers."""
    where = valid(batch)
    codes = self.teacher.features(self.features, extra["teacher"], batch)
    logits = self.clusters.apply({"params": params["clusters"]}, codes)
    logits = cast(Array, logits)
    targets = self.assignments(logits, where)
    clustering = cross_entropy(logits / self.cluster_temperature, targets)
    asked = keys.example_keys(keys.named(key, "predicted"), batch)
    mask = self.mask(batch, key).subset(asked, self.num_predicted)
    predictions = self.model.apply(
      {"params": params}, self.patches(batch), mask, rngs=dict(rngs)
    )
    predictions = cast(Array, predictions) / self.student_temperature
    prediction = cross_entropy(predictions, mask.take_masked(targets))
    each = prediction.mean(axis=1) + clustering.mean(axis=1)
    return Loss.of(
      Mean.of(each, where),
      prediction=Mean.of(prediction, where[:, None]),
      clustering=Mean.of(clustering, where[:, None]),
    )

  def assignments(self, logits: Array, where: Array) -> Array:
    """How much of each patch belongs to each cluster, without gradients: [B, N, K]."""
    # [B, N, K] -> [N, B, K]
    scores = jax.lax.stop_gradient(logits).swapaxes(0, 1) / self.target_temperature
    return sinkhorn(scores, where, steps=self.sinkhorn_steps).swapaxes(0, 1)


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
    registers: learned tokens beside the patches.
    teacher: see `maskjax.objectives.teachers`; the paper's `decay` of `ema` falls from
      1 to 0.999 while the learning rate rises, and rises to 1 as that falls.
    mask: name of a sampler of `maskjax.masking`, or an import path.
    mask_ratio: share of the patches that is masked.
    predicted_ratio: share of the masked patches that is predicted.
    num_clusters: number of clusters, in the paper as many as images in a batch.
    target_temperature: of the logits that are shared out.
    cluster_temperature: of the logits that learn from that.
    student_temperature: of the predictions.
    sinkhorn_steps: how often clusters and images are normalized.
    drop_path: drop rate of the student's last blocks; earlier ones' rise from 0 to it.
    **network: see `maskjax.models.Network`; `norm_epsilon` is 1e-5 when left out.

  Raises:
    UserError: hyperparameters that do not fit each other; names them.

  Example:
    >>> capi(image_size=28, patch_size=4, encoder="Ti").num_predicted
    1
  """
  network = {"norm_epsilon": 1e-5, **network}
  vit = vit_encoder(
    image_size=image_size,
    patch_size=patch_size,
    encoder=encoder,
    positions="rotary",
    class_token=False,
    registers=registers,
    drop_path=drop_path,
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
  images = masks(vit, mask, mask_ratio, patch_size=patch_size, channels=channels)
  num_masked = images["num_masked"]
  shape = {"width": vit.width, "depth": 12, "heads": vit.heads, **(predictor or {})}
  asks = decoder_of(vit, shape, kind=Predictor, role="predictor")
  check_rotary("predictor", width=asks.width, heads=asks.heads, axes=len(asks.grid))
  return Capi(
    model=ClusterPredictor(
      encoder=vit,
      predictor=asks,
      head=CosineHead(size=num_clusters),
    ),
    **images,
    clusters=Clusters(num_clusters=num_clusters),
    teacher=resolve.build(teachers, teacher),
    num_predicted=max(1, int(num_masked * predicted_ratio)),
    target_temperature=target_temperature,
    cluster_temperature=cluster_temperature,
    student_temperature=student_temperature,
    sinkhorn_steps=sinkhorn_steps,
  )
