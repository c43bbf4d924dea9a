"""Mask, encode, predict, compare: the objective whose parts alone differ between systems."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, cast

from jax import Array

from maskjax import keys
from maskjax.losses import Loss, Mean
from maskjax.masking import Mask
from maskjax.objectives.images import ImageObjective
from maskjax.objectives.objective import Batch, Variables, collections, valid
from maskjax.targets import Target


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction(ImageObjective):
  """Something of the masked patches, computed from the image itself, is predicted.

  Attributes:
    target: what; its `size` is what the model's predictions are long.
    error: of each token, from two [B, M, T] to [B, M].
  """

  target: Target
  error: Callable[[Array, Array], Array]

  def loss_under(
    self,
    mask: Mask,
    params: Any,
    batch: Batch,
    *,
    rngs: Mapping[str, Array] | None = None,
  ) -> Loss:
    """The loss of given masks; `rngs` are the model's, see `predict`."""
    predictions = self.predict(mask, params, self.patches(batch), rngs=rngs)
    errors = self.error(predictions, mask.take_masked(self.targets(batch)))
    return Loss.of(Mean.of(errors, valid(batch)[:, None]))

  def predict(
    self,
    mask: Mask,
    params: Any,
    patches: Array,
    *,
    visible_too: bool = False,
    rngs: Mapping[str, Array] | None = None,
  ) -> Array:
    """Predictions of the masked patches of [B, N, P], or of all: [B, M or N, T].

    Random numbers are drawn from `rngs`, by what they are for; without them, the model
    is as it is when it is evaluated.
    """
    predictions = self.model.apply(
      collections(params), patches, mask, visible_too, rngs=rngs
    )
    return cast(Array, predictions)

  def targets(self, batch: Batch) -> Array:
    """What is compared at each patch: [B, N, T]."""
    return self.target(batch["image"])

  def reconstruct(self, params: Any, batch: Batch, key: Array) -> dict[str, Array]:
    """Images as they are, as the encoder sees them, and as they are predicted.

    Where the target is not the pixels, it is drawn too. Visible patches are drawn as
    they are.
    """
    images, patches = batch["image"], self.patches(batch)
    mask = self.mask(batch, key)
    targets = self.targets(batch)
    predicted = mask.restore(
      mask.take_visible(targets), self.predict(mask, params, patches)
    )
    pictures = {
      "original": images,
      "masked": self.masked_images(batch, mask),
      "target": self.target.draw(targets, images),
      "reconstructed": self.target.draw(predicted, images),
    }
    if self.target.is_pixels:
      del pictures["target"]
    return pictures


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reconstruction(Prediction):
  """Predicts it, and does nothing else.

  Attributes:
    num_predicted: how many of the masked patches a step asks for, drawn at random; all
      when None.
  """

  num_predicted: int | None = None

  def init(self, key: Array, batch: Batch) -> Variables:
    """Parameters for images of the batch's shape."""
    return Variables(self.init_model(key, batch))

  def loss(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """Mean error of the masked patches."""
    del extra
    mask, rngs = self.mask(batch, key), self.drop_path_rngs(batch, key)
    if self.num_predicted is not None:
      example_keys = keys.example_keys(keys.named(key, "predicted"), batch)
      mask = mask.subset(example_keys, self.num_predicted)
    return self.loss_under(mask, params, batch, rngs=rngs)

  def evaluate(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """As `loss`, by the whole model and of all that is masked."""
    del extra
    return self.loss_under(self.mask(batch, key), params, batch)
