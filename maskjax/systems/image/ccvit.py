"""CCViT: centroid-centered modeling for efficient vision transformer pre-training.

The tokenizer is k-means over patches of pixels, which needs no training. Of each image
a block of patches is masked and some others are replaced by their centroid; of both,
one branch predicts the centroid's number, and another, which knows the image's later
half only through the class token, the pixels (https://arxiv.org/abs/2303.04664).
Config: `configs/image/ccvit.py`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Unpack, cast

import jax
import jax.numpy as jnp
from jax import Array

from maskjax import keys, masking
from maskjax.errors import UserError, at_least_one
from maskjax.losses import Loss, Mean, cross_entropy, squared_error
from maskjax.masking import Mask
from maskjax.models import Network, TokensAndPixels, vit_encoder
from maskjax.objectives.images import ImageObjective, masks
from maskjax.objectives.objective import Batch, Variables, valid
from maskjax.systems.system import System
from maskjax.targets import Pixels, kmeans, nearest
from maskjax.tokens.patches import per_side

SYSTEM = System(
  name="ccvit",
  family="image",
  paper="arXiv:2303.04664",
  config="configs/image/ccvit.py",
  agrees_with="scikit-learn KMeans, equations in torch",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CentroidModeling(ImageObjective):
  """Predicts centroids and pixels; `ccvit` makes it from hyperparameters.

  Attributes:
    target: the pixels.
    num_replaced: how many visible patches give way to their centroid.
    kmeans_steps: of Lloyd's algorithm.
  """

  target: Pixels
  num_replaced: int
  kmeans_steps: int

  def init(self, key: Array, batch: Batch) -> Variables:
    """Parameters, and as `centroids` those of the patches of this very batch.

    They begin as patches of it that the key draws.

    Raises:
      UserError: the batch has fewer patches than there are to be centroids.
    """
    patches, count = self.patches(batch), self.model.num_tokens
    flat = patches.reshape(-1, self.patch_dim)  # [B N, P]
    if len(flat) < count:
      raise UserError(
        f"num_centroids={count}: expected at most the {len(flat)} patches of a batch"
      )
    one = {name: rows[:1] for name, rows in batch.items()}
    mask = self.mask(one, key)
    drawn = jax.random.choice(
      keys.named(key, "centroids"), len(flat), (count,), replace=False
    )
    return Variables(
      self.model.init(key, patches[:1], mask, mask)["params"],
      {
        "centroids": kmeans(
          patches.swapaxes(0, 1), flat[drawn], steps=self.kmeans_steps
        )
      },
    )

  def loss(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """Mean over masked and replaced patches of both branches' errors."""
    mask = self.mask(batch, key)
    replaced = self.replaced(mask, batch, key)
    return self.loss_under(mask, replaced, params, extra, batch)

  def replaced(self, mask: Mask, batch: Batch, key: Array) -> Array:
    """Which visible patches give way to their centroid: bool [B, N]."""

    def some(key: Array, masked: Array) -> Array:
      noise = jax.random.uniform(key, masked.shape)
      return masking.highest(noise - masked, self.num_replaced)

    example_keys = keys.example_keys(keys.named(key, "replaced"), batch)
    return jax.vmap(some)(example_keys, mask.masked)

  def loss_under(
    self, mask: Mask, replaced: Array, params: Any, extra: Any, batch: Batch
  ) -> Loss:
    """The loss of given masks and replacements."""
    patches, centroids = self.patches(batch), extra["centroids"]
    ids, _ = nearest(patches, centroids)
    given = jnp.where(replaced[..., None], centroids[ids], patches)
    count = self.num_masked + self.num_replaced
    asked = Mask.exactly(mask.masked | replaced, num_masked=count)
    logits, pixels = self.predict(mask, asked, params, given)
    truth = asked.take_masked(ids)
    tokens = cross_entropy(logits, jax.nn.one_hot(truth, logits.shape[-1]))
    errors = squared_error(pixels, asked.take_masked(self.target(batch["image"])))
    counts = valid(batch)[:, None]
    return Loss.of(
      Mean.of(tokens + errors, counts),
      tokens=Mean.of(tokens, counts),
      accuracy=Mean.of(logits.argmax(axis=-1) == truth, counts),
      pixels=Mean.of(errors, counts),
    )

  def predict(
    self, mask: Mask, asked: Mask, params: Any, patches: Array
  ) -> tuple[Array, Array]:
    """See `maskjax.models.TokensAndPixels`."""
    outputs = self.model.apply({"params": params}, patches, mask, asked)
    return cast(tuple[Array, Array], outputs)

  def reconstruct(self, params: Any, batch: Batch, key: Array) -> dict[str, Array]:
    """Images as they are, masked without replacements, and with predicted pixels."""
    images, mask = batch["image"], self.mask(batch, key)
    _, pixels = self.predict(mask, mask, params, self.patches(batch))
    completed = mask.restore(mask.take_visible(self.target(images)), pixels)
    return {
      "original": images,
      "masked": self.masked_images(batch, mask),
      "reconstructed": self.target.draw(completed, images),
    }


def ccvit(
  *,
  image_size: int | Sequence[int] = 224,
  channels: int = 3,
  patch_size: int | Sequence[int] = 16,
  encoder: Mapping[str, Any] | str = "B",
  branch: Mapping[str, int] | None = None,
  num_centroids: int = 8192,
  kmeans_steps: int = 20,
  mask: str | Mapping[str, Any] = "blockwise",
  mask_ratio: float = 0.38,
  replace_ratio: float = 0.1,
  norm_pix_loss: bool = True,
  layer_scale: float = 0.1,
  **network: Unpack[Network],
) -> CentroidModeling:
  """Makes CCViT from hyperparameters.

  Args:
    image_size: side, or (height, width), in pixels.
    channels: values a pixel.
    patch_size: side, or (height, width), in pixels.
    encoder: a size of `maskjax.models.VIT_SIZES`, or `width`, `depth`, `heads`.
    branch: of the branch for pixels: after how many of the encoder's blocks it begins,
      `early`, and how many of its own it has, `depth`; 9 and 2 when None.
    num_centroids: how many tokens there are; at most the patches of a batch.
    kmeans_steps: how often k-means moves the centroids.
    mask: name of a sampler of `maskjax.masking`, or an import path.
    mask_ratio: share of the patches that is masked.
    replace_ratio: share of all patches that is replaced by centroids.
    norm_pix_loss: normalize each target patch by its own mean and std.
    layer_scale: see `maskjax.models.BlockOptions`.
    **network: see `maskjax.models.Network`.

  Raises:
    UserError: hyperparameters that do not fit each other; names them.

  Example:
    >>> objective = ccvit()
    >>> objective.num_masked, objective.num_replaced
    (75, 20)
  """
  patch = per_side(patch_size)
  vit = vit_encoder(
    image_size=image_size,
    patch_size=patch,
    encoder=encoder,
    masked_patches="token",
    positions="relative",
    final_norm=False,
    key_bias=False,
    layer_scale=layer_scale,
    **network,
  )
  of_branch = {"early": 9, "depth": 2, **(branch or {})}
  if not 1 <= of_branch["early"] <= vit.depth:
    raise UserError(
      f"branch.early={of_branch['early']}: expected from 1 to encoder.depth={vit.depth}"
    )
  at_least_one(num_centroids=num_centroids, kmeans_steps=kmeans_steps)
  at_least_one(**{"branch.depth": of_branch["depth"]})
  length = vit.grid[0] * vit.grid[1]
  if not 0 < replace_ratio < 1 - mask_ratio:
    raise UserError(
      f"replace_ratio={replace_ratio}: expected more than 0 and less than the share of "
      f"patches that mask_ratio={mask_ratio} leaves visible"
    )
  target = Pixels(patch_size=patch, channels=channels, normalized=norm_pix_loss)
  return CentroidModeling(
    model=TokensAndPixels(
      encoder=vit,
      num_tokens=num_centroids,
      patch_dim=target.size,
      early=of_branch["early"],
      branch_depth=of_branch["depth"],
    ),
    **masks(vit, mask, mask_ratio, patch_size=patch, channels=channels),
    target=target,
    num_replaced=masking.num_masked(length, replace_ratio),
    kmeans_steps=kmeans_steps,
  )
