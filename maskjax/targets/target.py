"""The interface of targets that are computed from images."""

from typing import Protocol

from jax import Array


class Target(Protocol):
  """What is predicted of each patch of an image, computed from the image itself.

  Attributes:
    size: length T of the target of a patch.
    is_pixels: whether drawing the targets themselves gives the image back.
  """

  @property
  def size(self) -> int: ...

  @property
  def is_pixels(self) -> bool: ...

  def __call__(self, images: Array) -> Array:
    """float32 [B, H, W, C] to [B, N, T]."""

  def draw(self, values: Array, images: Array) -> Array:
    """Draws values [B, N, T], true or predicted, for people: float32 [B, H, W, C].

    A drawing may be larger than the image, by the same whole number in H and W.

    Args:
      values: of all patches.
      images: what the true values were computed from, for what they leave out.
    """
