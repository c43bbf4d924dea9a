"""Mask, encode, predict, compare: for systems that change no more than the parts."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, cast

from jax import Array

from maskjax import keys
from maskjax.losses import Loss, Mean
from maskjax.masking import Mask
from maskjax.objectives.objective import Batch, Step, Variables, valid
from maskjax.objectives.patches import PatchObjective
from maskjax.targets import Target


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reconstruction(PatchObjective):
  """Predicts something of the masked patches that is computed from the example itself.

  The model is called with patches [B, N, P] and a mask, and predicts [B, M, T]; with a
  third argument, True, it predicts all patches, [B, N, T].

  Attributes:
    target: what is predicted.
    error: of each token, from two [B, M, T] to [B, M].
    num_predicted: how many of the masked patches are predicted in training, drawn at
      random; all when None.
  """

  target: Target
  error: Callable[[Array, Array], Array]
  num_predicted: int | None = None

  def init(self, key: Array, batch: Batch) -> Variables:
    """Parameters for examples of the batch's shape."""
    return Variables(self.init_params(key, batch))

  def loss(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """Mean error of the masked patches, with dropped paths where there are such."""
    mask, rngs = self.mask(batch, step), self.rngs(batch, step)
    if self.num_predicted is not None:
      example_keys = keys.example_keys(keys.named(step.key, "predicted"), batch)
      mask = mask.subset(example_keys, self.num_predicted)
    return self.loss_of_mask(variables, batch, mask, rngs)

  def evaluate(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """Mean error of all masked patches, by the whole network."""
    return self.loss_of_mask(variables, batch, self.mask(batch, step))

  def loss_of_mask(
    self,
    variables: Variables,
    batch: Batch,
    mask: Mask,
    rngs: Mapping[str, Array] | None = None,
  ) -> Loss:
    """The loss under given masks; `rngs` are generators of the model."""
    predictions = self.apply(variables, self.patches(batch), mask, rngs=rngs)
    return patch_loss(self.error, predictions, self.targets(batch), mask, batch)

  def targets(self, batch: Batch) -> Array:
    """What is to be predicted at each patch: [B, N, T]."""
    return self.target(batch[self.patches.name])

  def reconstruct(
    self, variables: Variables, batch: Batch, step: Step
  ) -> dict[str, Array]:
    """See `pictures`."""
    mask = self.mask(batch, step)
    predictions = self.apply(variables, self.patches(batch), mask)
    return pictures(self, self.target, predictions, batch, mask)


def patch_loss(
  error: Callable[[Array, Array], Array],
  predictions: Array,
  targets: Array,
  mask: Mask,
  batch: Batch,
) -> Loss:
  """The mean error of predictions [B, M, T] of masked patches.

  Args:
    error: of each token, from two [B, M, T] to [B, M].
    predictions: of the patches at `mask.masked_ids`.
    targets: of all patches, [B, N, T].
    mask: the masks.
    batch: its `valid` examples count.
  """
  errors = error(predictions, mask.take_masked(targets))
  return Loss.of(Mean.of(errors, valid(batch)[:, None]))


def pictures(
  objective: PatchObjective,
  target: Target,
  predictions: Any,
  batch: Batch,
  mask: Mask,
) -> dict[str, Array]:
  """Examples as they are, as the encoder sees them, and as they are predicted.

  Where the target is not the pixels, it is drawn too. Visible patches are drawn as
  they are.

  Args:
    objective: cuts the patches.
    target: what was predicted.
    predictions: of the masked patches, [B, M, T].
    batch: the examples.
    mask: the masks.

  Returns:
    Pictures [B, H, W, C] by name.
  """
  images = batch[objective.patches.name]
  targets = target(images)
  whole = mask.restore(mask.take_visible(targets), cast(Array, predictions))
  drawn = {
    "original": images,
    "masked": objective.masked_images(batch, mask),
    "target": target.draw(targets, images),
    "reconstructed": target.draw(whole, images),
  }
  if target.is_pixels:
    del drawn["target"]
  return drawn
