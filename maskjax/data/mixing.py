"""Mixing of whole batches for fine-tuning: mixup, CutMix and label smoothing."""

import jax
import jax.numpy as jnp

from maskjax.errors import UserError


def mixup_cutmix(
  key: jax.Array,
  images: jax.Array,
  targets: jax.Array,
  *,
  mixup_alpha: float = 0.8,
  cutmix_alpha: float = 1.0,
  prob: float = 1.0,
  switch_prob: float = 0.5,
) -> tuple[jax.Array, jax.Array]:
  """Mixes every image with its partner from the reversed batch.

  mixup (Zhang et al. 2018) averages the two images; CutMix (Yun et al. 2019) pastes
  a box of the partner into the image. As in timm's batch mode, the whole batch has one
  choice between the two, one share and one box, and the targets are averaged by the
  shares of pixels after clipping the box to the image.

  Args:
    key: the randomness.
    images: floating `[B, H, W, C]`.
    targets: floating `[B, K]`, one-hot or smoothed.
    mixup_alpha: the share in mixup is drawn from Beta(alpha, alpha); 0 for no
      mixup; with both at 0 nothing is mixed.
    cutmix_alpha: the same for CutMix.
    prob: probability that a batch is mixed.
    switch_prob: probability of CutMix instead of mixup, where both are on.

  Returns:
    The mixed `images` and `targets`, of the same shapes and dtypes.

  Raises:
    UserError: integer images or targets.
  """
  for name, array in (("images", images), ("targets", targets)):
    if not jnp.issubdtype(array.dtype, jnp.floating):
      raise UserError(f"mixup_cutmix needs floating {name}, got {array.dtype}")
  if mixup_alpha <= 0 and cutmix_alpha <= 0:
    return images, targets
  if mixup_alpha <= 0:
    switch_prob = 1.0
  elif cutmix_alpha <= 0:
    switch_prob = 0.0
  key_on, key_switch, key_mixup, key_cutmix = jax.random.split(key, 4)
  height, width = images.shape[1:3]

  # The share of the image itself, rather than of its partner, at each pixel [H, W].
  own = jnp.ones((height, width))
  if mixup_alpha > 0:
    own *= jax.random.beta(key_mixup, mixup_alpha, mixup_alpha)
  if cutmix_alpha > 0:
    cut = _outside_box(key_cutmix, height, width, cutmix_alpha)
    own = jnp.where(jax.random.uniform(key_switch) < switch_prob, cut, own)
  own = jnp.where(jax.random.uniform(key_on) < prob, own, 1.0)

  # [H, W, 1] against [B, H, W, C], and a scalar against [B, K]
  mixed_images = _mix(images, own[..., None])
  return mixed_images, _mix(targets, own.mean())


def smooth_labels(labels: jax.Array, num_classes: int, smoothing: float) -> jax.Array:
  """One-hot targets with `smoothing` of their weight spread evenly over all classes.

  Args:
    labels: int `[B]`.
    num_classes: K.
    smoothing: the weight spread evenly over the K classes (Szegedy et al. 2016).

  Returns:
    float32 `[B, K]`, rows of sum 1.

  Example:
    >>> smooth_labels(jnp.array([1]), num_classes=2, smoothing=0.5).tolist()
    [[0.25, 0.75]]
  """
  one_hot = jax.nn.one_hot(labels, num_classes, dtype=jnp.float32)
  return one_hot * (1 - smoothing) + smoothing / num_classes


def _outside_box(key: jax.Array, height: int, width: int, alpha: float) -> jax.Array:
  """1 outside a random box and 0 in it: float32 `[height, width]`."""
  key_share, key_y, key_x = jax.random.split(key, 3)
  side = jnp.sqrt(1 - jax.random.beta(key_share, alpha, alpha))

  def inside(key: jax.Array, length: int) -> jax.Array:
    half = jnp.floor(length * side).astype(jnp.int32) // 2
    center = jax.random.randint(key, (), 0, length)
    at = jnp.arange(length)
    return (at >= center - half) & (at < center + half)

  box = inside(key_y, height)[:, None] & inside(key_x, width)[None, :]
  return 1.0 - box


def _mix(batch: jax.Array, own: jax.Array) -> jax.Array:
  own = own.astype(batch.dtype)
  return batch * own + batch[::-1] * (1 - own)
