"""Joint embedding: a teacher's features of target blocks, predicted from a context."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax import Array

from maskjax import keys
from maskjax.errors import UserError, did_you_mean
from maskjax.losses import Loss, Mean, smooth_l1, squared_error
from maskjax.masking import Masking, MultiBlock, gather
from maskjax.models import Decoder, VisionEncoder, decoder_of, vit_encoder
from maskjax.objectives import teachers
from maskjax.objectives.objective import Batch, Step, Variables, valid
from maskjax.objectives.patches import PatchObjective
from maskjax.objectives.teachers import PastStudent, Teacher
from maskjax.targets import whitened
from maskjax.tokens import Patches

ERRORS = {"smooth_l1": smooth_l1, "squared": squared_error}


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockPrediction(PatchObjective):
  """Predicts a teacher's features of target blocks; `block_prediction` makes it.

  The model is called with patches, the context's mask and blocks, see
  `maskjax.models.JointEmbedding`.

  Attributes:
    blocks: draws the target blocks, with the keys under which it draws the context.
    teacher: see `maskjax.objectives.teachers`.
    error: of each patch, from two [B, T, K, D] to [B, T, K].
    aggregates: whether the model has a method `targets`, which turns the teacher's
      normalized features [B, N, D] into what is predicted, [B, N, D].
  """

  blocks: MultiBlock
  teacher: Teacher
  error: Callable[[Array, Array], Array]
  aggregates: bool = False

  @property
  def pretrained(self) -> Mapping[str, str]:
    """The teacher's run."""
    return self.teacher.pretrained

  def init(self, key: Array, batch: Batch) -> Variables:
    """Parameters for images of the batch's shape, and the teacher."""
    params = self.init_params(key, batch)
    return Variables(params, {"teacher": self.teacher.init(params, key, batch)})

  def loss(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """Mean error of the target blocks' patches."""
    blocks = self.target_blocks(batch, step)
    predictions = self.apply(
      variables, self.patches(batch), self.mask(batch, step), blocks
    )
    targets = gather(self.target_features(variables, batch), blocks)
    errors = self.error(predictions, targets)
    return Loss.of(Mean.of(errors, valid(batch)[:, None, None]))

  def update(
    self, variables: Variables, batch: Batch, step: Step, sums: Mapping[str, Any]
  ) -> Variables:
    """Updates the teacher, where it is an average."""
    params, extra = variables
    teacher = self.teacher.update(extra["teacher"], params, step)
    return Variables(params, {**extra, "teacher": teacher})

  def teacher_variables(self, variables: Variables) -> Variables:
    """The variables with the teacher's encoder instead of the student's.

    Raises:
      UserError: the teacher is another network, which has no such place.
    """
    if not isinstance(self.teacher, PastStudent):
      raise UserError(
        "eval.network='teacher': expected objective.teacher.name='ema', a network of "
        "the student's kind"
      )
    params, extra = variables
    return Variables({**params, **extra["teacher"]}, extra)

  def target_blocks(self, batch: Batch, step: Step) -> Array:
    """The positions of the predicted patches: int32 [B, T, K]."""
    example_keys = keys.example_keys(keys.named(step.key, "mask"), batch)
    return jax.vmap(lambda key: self.blocks.targets(key, self.patches.grid))(
      example_keys
    )

  def target_features(self, variables: Variables, batch: Batch) -> Array:
    """What is to be predicted at each patch: [B, N, D]."""
    taught = variables.extra["teacher"]
    features = self.teacher.features(self.features, taught, batch)
    features = whitened(features, epsilon=1e-5)
    if not self.aggregates:
      return features
    return self.apply(Variables(taught), features, method="targets")


def context_networks(
  patches: Patches,
  *,
  encoder: Mapping[str, Any] | str,
  predictor: Mapping[str, Any] | None,
  predictor_depth: int,
  **network: Any,
) -> tuple[VisionEncoder, Decoder]:
  """Makes an encoder without a class token, and a predictor of its features.

  Args:
    patches: cuts the images.
    encoder: a size of `maskjax.models.VIT_SIZES`, or `width`, `depth`, `heads`.
    predictor: `width`, `depth`, `heads`; 384, `predictor_depth` and the encoder's heads
      where left out.
    predictor_depth: see `predictor`.
    **network: see `maskjax.models.Network`.

  Raises:
    UserError: a shape that no network has, or an unknown option; names the key.
  """
  vit = vit_encoder(grid=patches.grid, encoder=encoder, class_token=False, **network)
  shape = {"width": 384, "depth": predictor_depth, "heads": vit.heads}
  shape |= predictor or {}
  return vit, decoder_of(vit, shape, role="predictor", patch_dim=vit.width)


def block_prediction(
  *,
  model: Any,
  patches: Patches,
  teacher: Teacher,
  num_targets: int,
  target_scale: Sequence[float],
  target_aspect: Sequence[float],
  context_scale: Sequence[float],
  context_ratio: float,
  error: str,
  aggregates: bool = False,
) -> BlockPrediction:
  """Makes `BlockPrediction` from its parts and the hyperparameters of its masks.

  Args:
    model: see `BlockPrediction`.
    patches: cuts the images.
    teacher: its features have to be as wide as the encoder's.
    num_targets: see `maskjax.masking.MultiBlock`.
    target_scale: see `maskjax.masking.MultiBlock`.
    target_aspect: see `maskjax.masking.MultiBlock`.
    context_scale: see `maskjax.masking.MultiBlock`.
    context_ratio: share of the patches that is the context.
    error: a name in `ERRORS`.
    aggregates: see `BlockPrediction`.

  Raises:
    UserError: a range of the masks, an error or a teacher that does not fit; names it.
  """
  blocks = MultiBlock(
    num_targets=num_targets,
    target_scale=tuple(target_scale),
    target_aspect=tuple(target_aspect),
    context_scale=tuple(context_scale),
  )
  if error not in ERRORS:
    raise UserError(f"error={error!r}: {did_you_mean(error, ERRORS)}")
  encoder = model.encoder
  width = teachers.features_width(teacher, encoder, patches)
  if width != encoder.width:
    raise UserError(
      f"teacher: its features are {width} wide: expected encoder.width={encoder.width}"
    )
  return BlockPrediction(
    model=model,
    patches=patches,
    masking=Masking(
      sampler=blocks,
      grid=patches.grid,
      num_masked=blocks.num_masked(patches.grid, context_ratio),
    ),
    blocks=blocks,
    teacher=teacher,
    error=ERRORS[error],
    aggregates=aggregates,
  )
