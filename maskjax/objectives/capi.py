"""CAPI: cluster and predict latent patches.

Shows one block of an image to a ViT, and has a predictor that attends to its codes
alone name the clusters of hidden patches' codes, as an average of the ViT over past
steps has them. The clusters are learnt on the way, from the teacher's codes and with a
learning rate of their own; Sinkhorn and Knopp's iteration shares them out evenly at
each place of the grid, so that no cluster can stand for a place
(https://arxiv.org/abs/2502.08769). Config: `configs/image/capi.py`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax import Array

from maskjax import keys, masking, resolve
from maskjax.errors import UserError
from maskjax.losses import Loss, Mean, cross_entropy
from maskjax.masking import samplers
from maskjax.models import (
  ClusterPredictor,
  Clusters,
  CosineHead,
  Predictor,
  check_shape,
  vit_encoder,
)
from maskjax.objectives import teachers
from maskjax.objectives.images import ImageObjective
from maskjax.objectives.objective import Batch, Variables, valid
from maskjax.objectives.teachers import Teacher
from maskjax.systems import System
from maskjax.tokens.patches import pair

SYSTEM = System(
  name="capi",
  family="image",
  paper="arXiv:2502.08769",
  config="configs/image/capi.py",
  agrees_with="equations in NumPy",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Capi(ImageObjective):
  """Predicts the clusters of a teacher's codes, and learns the clusters.

  The two losses share no parameters: gradients reach the clusters through their own
  loss alone, and the student through the other. Clusters are shared out evenly among
  the images that are computed at once: with microbatches, among those of each.

  Attributes:
    clusters: says how near the teacher's codes are to clusters.
    teacher: sees whole images.
    num_predicted: how many hidden patches are predicted, drawn at random.
    target_temperature: of the logits that are shared out.
    cluster_temperature: of the logits that learn from that.
    student_temperature: of the predictions.
    sinkhorn_steps: how often columns and rows are normalised.
    drops_paths: whether the student drops branches in training.
  """

  clusters: Clusters
  teacher: Teacher
  num_predicted: int
  target_temperature: float
  cluster_temperature: float
  student_temperature: float
  sinkhorn_steps: int
  drops_paths: bool

  @property
  def pretrained(self) -> dict[str, str]:
    """The teacher's run."""
    return {"teacher": self.teacher.workdir} if self.teacher.workdir else {}

  def init(self, key: Array, batch: Batch) -> Variables:
    """Parameters for images of the batch's shape, and the teacher."""
    params = self.init_model(key, batch)
    taught = self.teacher.init(averaged(params), keys.named(key, "teacher"), batch)

    def codes(batch: Batch) -> Array:
      return self.teacher.features(self.features, taught, batch)

    width = jax.eval_shape(codes, batch).shape[-1]
    clusters = self.clusters.init(keys.named(key, "clusters"), jnp.zeros((1, width)))
    return Variables({**params, "clusters": clusters["params"]}, {"teacher": taught})

  def loss(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """As `evaluate`, with dropped paths."""
    # The first example's key, so that microbatches draw different numbers.
    first = keys.example_keys(keys.named(key, "drop_path"), batch)[0]
    rngs = {"drop_path": first} if self.drops_paths else {}
    return self.loss_under(params, extra, batch, key, rngs)

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
    mask = self.mask(batch, key).asking(asked, self.num_predicted)
    predictions = self.model.apply(
      {"params": params}, self.patches(batch), mask, rngs=dict(rngs)
    )
    predictions = cast(Array, predictions) / self.student_temperature
    prediction = cross_entropy(predictions, mask.masked(targets))
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

  def update_extra(self, params: Any, extra: Any, step: Array, sums: Any) -> Any:
    """Lets the teacher follow."""
    del sums
    return {"teacher": self.teacher.update(extra["teacher"], averaged(params), step)}


def averaged(params: Mapping[str, Any]) -> dict[str, Any]:
  """What of the student has a teacher: the encoder."""
  return {"encoder": params["encoder"]}


def sinkhorn(scores: Array, where: Array, *, steps: int) -> Array:
  """Shares clusters out evenly among examples (https://arxiv.org/abs/1306.0895).

  Args:
    scores: logarithms of the first shares, [..., B, K].
    where: which examples take part, bool [B]; others get nothing.
    steps: how often each cluster's shares, and then each example's, are made to sum
      to 1.

  Returns:
    float32 [..., B, K], the rows sum to 1.

  Example:
    >>> even = sinkhorn(jnp.array([[0.0, 9.0], [0.0, 7.0]]), jnp.ones(2, bool), steps=9)
    >>> [f"{x:.2f}" for x in even.ravel()]
    ['0.27', '0.73', '0.73', '0.27']
  """
  part = where[:, None]
  scores = jnp.where(part, scores.astype(jnp.float32), -1e30)
  shares = jnp.where(part, jnp.exp(scores - scores.max(axis=-2, keepdims=True)), 0)
  for _ in range(steps):
    shares = shares / (shares.sum(axis=-2, keepdims=True) + 1e-8)
    shares = shares / (shares.sum(axis=-1, keepdims=True) + 1e-8)
  return shares


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
  dtype: str = "float32",
  mlp_ratio: float = 4.0,
  norm_epsilon: float = 1e-5,
  scan: bool = False,
  remat: str = "none",
) -> Capi:
  """Makes CAPI from hyperparameters.

  Args:
    image_size: side, or (height, width), in pixels.
    channels: values a pixel.
    patch_size: side, or (height, width), in pixels.
    encoder: a size of `maskjax.models.VIT_SIZES`, or `width`, `depth`, `heads`.
    predictor: `width`, `depth`, `heads`; when None as the encoder, with 12 blocks.
    registers: learnt tokens beside the patches.
    teacher: see `maskjax.objectives.teachers`; the paper's `decay` of `ema` falls from
      1 to 0.999 while the learning rate rises, and rises to 1 as that falls.
    mask: name of a sampler of `maskjax.masking`, or an import path.
    mask_ratio: share of the patches that is hidden.
    predicted_ratio: share of the hidden patches that is predicted.
    num_clusters: number of clusters, in the paper as many as images in a batch.
    target_temperature: of the logits that are shared out.
    cluster_temperature: of the logits that learn from that.
    student_temperature: of the predictions.
    sinkhorn_steps: how often clusters and images are normalised.
    drop_path: drop rate of the student's last blocks; earlier ones' rise from 0 to it.
    dtype: type of the computation; parameters are float32.
    mlp_ratio: hidden width of the blocks' networks by their width.
    norm_epsilon: added to the variance in layer normalisation.
    scan: compile one block and loop over it, see `maskjax.models.Transformer`.
    remat: `none`, `dots` or `full`: which activations are computed again in the
      backward pass, see `maskjax.models.Transformer`.

  Raises:
    UserError: hyperparameters that do not fit each other; names them.

  Example:
    >>> capi(image_size=28, patch_size=4, encoder="Ti").num_predicted
    1
  """
  vit = vit_encoder(
    image_size=image_size,
    patch_size=patch_size,
    encoder=encoder,
    positions="rotary",
    class_token=False,
    registers=registers,
    dtype=dtype,
    norm_epsilon=norm_epsilon,
    drop_path=drop_path,
    mlp_ratio=mlp_ratio,
    scan=scan,
    remat=remat,
  )
  for name, value in (
    ("target_temperature", target_temperature),
    ("cluster_temperature", cluster_temperature),
    ("student_temperature", student_temperature),
  ):
    if value <= 0:
      raise UserError(f"{name}={value}: expected a number above 0")
  for name, count in (
    ("num_clusters", num_clusters),
    ("sinkhorn_steps", sinkhorn_steps),
  ):
    if count < 1:
      raise UserError(f"{name}={count}: expected at least 1")
  if not 0 < predicted_ratio <= 1:
    raise UserError(
      f"predicted_ratio={predicted_ratio}: expected above 0 and at most 1"
    )
  num_hidden = masking.num_hidden(vit.grid[0] * vit.grid[1], mask_ratio)
  default = {"width": vit.width, "depth": 12, "heads": vit.heads}
  shape = check_shape("predictor", {**default, **(predictor or {})})
  for role, part in (
    ("encoder", vit),
    ("predictor", Predictor(grid=vit.grid, **shape)),
  ):
    if part.width // part.heads % 4:
      raise UserError(
        f"{role}.width={part.width}: expected a multiple of 4 channels for each of "
        f"{role}.heads={part.heads}, for rotary positions"
      )
  return Capi(
    model=ClusterPredictor(
      encoder=vit,
      predictor=Predictor(
        grid=vit.grid,
        norm_epsilon=norm_epsilon,
        options=vit.options,
        dtype=vit.dtype,
        **shape,
      ),
      head=CosineHead(num_clusters=num_clusters),
    ),
    sampler=resolve.bind(samplers, mask),
    num_hidden=num_hidden,
    patch_size=pair(patch_size),
    channels=channels,
    clusters=Clusters(num_clusters=num_clusters),
    teacher=resolve.build(teachers, teacher),
    num_predicted=max(1, int(num_hidden * predicted_ratio)),
    target_temperature=target_temperature,
    cluster_temperature=cluster_temperature,
    student_temperature=student_temperature,
    sinkhorn_steps=sinkhorn_steps,
    drops_paths=drop_path > 0,
  )
