"""Images for a network that was trained with other pixel statistics than a run has."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from maskjax.errors import UserError
from maskjax.objectives.objective import Batch

# Mean and std of each channel, by which pixels from 0 to 1 were normalized.
Colors = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Recolor:
  """Normalizes the images of a batch anew; `recolor` makes it.

  Attributes:
    factor: of the pixels of each channel, or of all.
    shift: added to the products.
  """

  factor: tuple[float, ...] = (1.0,)
  shift: tuple[float, ...] = (0.0,)

  def __call__(self, batch: Batch) -> Batch:
    """The batch, whose `image` [B, H, W, C] has the other statistics."""
    if (self.factor, self.shift) == ((1.0,), (0.0,)):
      return batch
    factor, shift = jnp.float32(self.factor), jnp.float32(self.shift)
    return {**batch, "image": batch["image"] * factor + shift}


def recolor(colors: Colors | None, batch_colors: Colors | None) -> Recolor:
  """Makes the change between two normalizations of the same pixels.

  Args:
    colors: `mean` and `std` of each channel, or of all, that a network's images are to
      be normalized by.
    batch_colors: those that the images of a batch are normalized by. Both None: images
      stay as they are.

  Raises:
    UserError: only one is given, or one lacks a positive std or its mean.

  Example:
    >>> change = recolor(dict(mean=0.5, std=0.5), dict(mean=0.0, std=1.0))
    >>> change({"image": jnp.array([[[[0.0], [1.0]]]])})["image"].ravel().tolist()
    [-1.0, 1.0]
  """
  if colors is None and batch_colors is None:
    return Recolor()
  (mean, std), (batch_mean, batch_std) = (
    _statistics(key, given)
    for key, given in (("colors", colors), ("batch_colors", batch_colors))
  )
  count = max(map(len, (mean, std, batch_mean, batch_std)))
  # One value for all channels, where that is all there is.
  mean, std, batch_mean, batch_std = (
    values * (count // len(values)) for values in (mean, std, batch_mean, batch_std)
  )
  if not len(mean) == len(std) == len(batch_mean) == len(batch_std):
    raise UserError(
      f"colors={dict(colors or {})}, batch_colors={dict(batch_colors or {})}: expected "
      "one value, or as many as there are channels"
    )
  return Recolor(
    factor=tuple(b / s for b, s in zip(batch_std, std, strict=True)),
    shift=tuple((b - m) / s for b, m, s in zip(batch_mean, mean, std, strict=True)),
  )


def _statistics(
  key: str, colors: Colors | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
  """The means and stds that a config gives; one for all channels as one of each."""
  try:
    mean, std = (_values(dict(colors or {})[name]) for name in ("mean", "std"))
  except (KeyError, TypeError, ValueError):
    mean = std = ()
  if not mean or not std or min(std) <= 0:
    raise UserError(
      f"{key}={colors if colors is None else dict(colors)}: expected a mean and a "
      "positive std, since colors and batch_colors stand together"
    )
  return mean, std


def _values(given: float | Sequence[float]) -> tuple[float, ...]:
  return tuple(map(float, given if isinstance(given, Sequence) else (given,)))
