"""What a system is to the rest of the house."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from maskjax.errors import UserError
from maskjax.losses import Loss
from maskjax.tokens import patchify

Batch = Mapping[str, Array]


class Variables(NamedTuple):
  """What an objective has learnt.

  Attributes:
    params: arrays that the optimizer changes.
    extra: arrays that the objective itself changes (EMA teachers, queues).
  """

  params: Any
  extra: Any = ()


class Objective(Protocol):
  """What the training loop asks of a system; write these two methods.

  An objective may have further methods, which are used where they are found:

  - `evaluate(params, extra, batch, key) -> Loss`, in place of `loss` on held-out
    data, where the two differ (mixing of images, dropped paths);
  - `update_extra(params, extra, step) -> extra`, after each optimizer step;
  - `features(params, batch) -> [B, N, D] or [B, D]`, for the probes;
  - `targets(batch) -> [B, N, P]`, to compare with predicting their mean;
  - `reconstruct(params, batch, key) -> {name: images [B, H, W, C]}`, for the
    pictures, in the order in which they are shown;
  - `batch_shapes(batch_size) -> {name: jax.ShapeDtypeStruct}`, of the batches that
    it trains on, so that `maskjax plan` need not read data.

  All are pure: no files, no printing, no state.
  """

  def init(self, key: Array, batch: Batch) -> Variables:
    """Makes the variables that a batch of this shape needs."""

  def loss(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """Judges the parameters on a batch.

    Args:
      params: see `Variables`.
      extra: see `Variables`.
      batch: arrays [B, ...], among them `index`, int [B], see `maskjax.keys`.
      key: this step's key; `maskjax.keys.example_keys` makes one an example.
    """


def valid(batch: Batch) -> Array:
  """Which examples count: bool [B].

  The last batch of an evaluation is filled up with copies, which do not.
  """
  if "valid" in batch:
    return batch["valid"]
  return jnp.ones(len(next(iter(batch.values()))), bool)


def image_patches(
  batch: Batch, grid: Sequence[int], patch_size: tuple[int, int], patch_dim: int
) -> Array:
  """Cuts the images of a batch into patches, if they are as the model expects.

  Args:
    batch: holds `image`, float [B, H, W, C].
    grid: rows and columns of patches that the model expects.
    patch_size: (height, width) in pixels.
    patch_dim: values in a patch that the model expects.

  Returns:
    [B, N, patch_dim].

  Raises:
    UserError: the images have another shape; names both.
  """
  found = batch["image"].shape[1:]
  expected = (
    grid[0] * patch_size[0],
    grid[1] * patch_size[1],
    patch_dim // (patch_size[0] * patch_size[1]),
  )
  if found != expected:
    raise UserError(
      f"the data has images of {'x'.join(map(str, found))}: expected "
      f"{'x'.join(map(str, expected))}, as objective.image_size and "
      "objective.channels say"
    )
  return patchify(batch["image"], patch_size)


def image_batch_shapes(
  batch_size: int, grid: Sequence[int], patch_size: tuple[int, int], patch_dim: int
) -> dict[str, jax.ShapeDtypeStruct]:
  """The shapes of a batch whose images `image_patches` takes."""
  (rows, columns), (p, q) = grid, patch_size
  image = (batch_size, rows * p, columns * q, patch_dim // (p * q))
  return {
    "image": jax.ShapeDtypeStruct(image, jnp.float32),
    "index": jax.ShapeDtypeStruct((batch_size,), jnp.int32),
  }
