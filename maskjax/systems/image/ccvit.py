"""CCViT: centroid-centered modeling for efficient vision transformer pre-training.

The tokenizer is k-means over patches of pixels, which needs no training. Of each image
a block of patches is masked and some others are replaced by their centroid; of both,
one branch predicts the number of the centroid, and another, which knows what the last
blocks found only through the class token, the pixels
(https://arxiv.org/abs/2303.04664). Config: `configs/image/ccvit.py`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from maskjax import keys, masking
from maskjax.errors import UserError, at_least_one
from maskjax.losses import Loss, Mean, squared_error
from maskjax.masking import Mask, masking_of
from maskjax.models import Network, blocks_like, norm_like, vit_encoder
from maskjax.models.encoder_model import EncoderModel
from maskjax.models.transformer import dense_like
from maskjax.objectives.objective import Batch, Step, Variables, first_example, valid
from maskjax.objectives.patches import PatchObjective
from maskjax.objectives.recolor import Colors, Recolor, recolor
from maskjax.objectives.reconstruction import pictures
from maskjax.objectives.tokenizers import code_accuracy, code_cross_entropy
from maskjax.systems.system import System
from maskjax.targets import Pixels, kmeans, nearest
from maskjax.tokens import patches_of

SYSTEM = System(
  name="ccvit",
  family="image",
  paper="arXiv:2303.04664",
  config="configs/image/ccvit.py",
  agrees_with="scikit-learn KMeans, equations in torch",
  differs=(
    "Centroids are those of the run's first batch, of crops as it trains on; the "
    "authors' are of the centers of 50 images of each class, found beforehand.",
    "Centroids without patches take over the farthest ones, as in scikit-learn; the "
    "authors' faiss splits large clusters.",
  ),
)


class TwoBranches(EncoderModel):
  """The network of CCViT (https://arxiv.org/abs/2303.04664, figure 2).

  Centroids are predicted from the last block. Pixels are predicted by further blocks,
  from the patches of an earlier one and the class token of the last, which must
  therefore know the image as a whole.

  Attributes:
    encoder: with `masked_patches="token"`, `positions="relative"`, `final_norm=False`.
    num_centroids: number K of centroids.
    patch_dim: length P of a patch of pixels.
    early: after how many blocks the second branch takes the patches.
    branch_depth: blocks of the second branch.
  """

  num_centroids: int
  patch_dim: int
  early: int
  branch_depth: int

  @nn.compact
  def __call__(
    self, patches: Array, mask: Mask, predicted: Mask
  ) -> tuple[Array, Array]:
    """Predicts patches.

    Args:
      patches: [B, N, P].
      mask: which patches mask tokens replace.
      predicted: which M patches of each image are predicted.

    Returns:
      Logits, float32 [B, M, K], and pixels, float32 [B, M, P].
    """
    encoder = self.encoder
    outputs = encoder.every_block(patches, mask)
    last, early = outputs[-1], outputs[self.early - 1]
    x = encoder.patch_tokens(norm_like(encoder, name="norm")(last))
    head = dense_like(encoder, self.num_centroids, "head", name="token_head")
    logits = head(predicted.take_masked(x))
    x = jnp.concatenate([last[:, :1], early[:, 1:]], axis=1)
    branch = blocks_like(encoder, self.branch_depth, before=self.early, name="branch")
    x = branch(x, bias=encoder.relative())[-1]
    x = encoder.patch_tokens(norm_like(encoder, name="pixel_norm")(x))
    head = dense_like(encoder, self.patch_dim, "head", name="pixel_head")
    pixels = head(predicted.take_masked(x))
    return logits.astype(jnp.float32), pixels.astype(jnp.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CCViT(PatchObjective):
  """The objective of CCViT; `ccvit` makes it from hyperparameters.

  Attributes:
    target: the pixels.
    recolor: takes the normalization by channel back, before which centroids and targets
      are computed.
    num_replaced: how many visible patches are replaced by their centroid.
    kmeans_steps: of Lloyd's algorithm.
  """

  target: Pixels
  recolor: Recolor
  num_replaced: int
  kmeans_steps: int

  def init(self, key: Array, batch: Batch) -> Variables:
    """Parameters, and as `centroids` those of the patches of this very batch.

    The first centroids are patches of it that the key draws.

    Raises:
      UserError: the batch has fewer patches than there are to be centroids.
    """
    patches, count = self.patches(self.recolor(batch)), self.model.num_centroids
    flat = patches.reshape(-1, self.patches.dim)  # [B N, P]
    if len(flat) < count:
      raise UserError(
        f"num_centroids={count}: expected at most the {len(flat)} patches of a batch"
      )
    mask = self.mask(first_example(batch), Step(key))
    params = self.model.init(key, patches[:1], mask, mask)["params"]
    drawn = jax.random.choice(
      keys.named(key, "centroids"), len(flat), (count,), replace=False
    )
    centroids = kmeans(patches.swapaxes(0, 1), flat[drawn], steps=self.kmeans_steps)
    return Variables(params, {"centroids": centroids})

  def loss(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """Mean over masked and replaced patches of both branches' errors."""
    mask = self.mask(batch, step)
    replaced = self.replaced(mask, batch, step)
    unchanged, centroids = self.recolor(batch), variables.extra["centroids"]
    ids, _ = nearest(self.patches(unchanged), centroids)
    count = mask.masked_ids.shape[1] + self.num_replaced
    predicted = Mask.exactly(mask.masked | replaced, num_masked=count)
    given = with_centroids(
      self.patches(batch), self.normalized(centroids[ids]), replaced
    )
    logits, pixels = self.apply(variables, given, mask, predicted)
    truth = predicted.take_masked(ids)
    tokens = code_cross_entropy(logits, truth)
    targets = self.target(unchanged[self.patches.name])
    errors = squared_error(pixels, predicted.take_masked(targets))
    where = valid(batch)[:, None]
    return Loss.of(
      Mean.of(tokens + errors, where),
      tokens=Mean.of(tokens, where),
      accuracy=code_accuracy(logits, truth, where),
      pixels=Mean.of(errors, where),
    )

  def normalized(self, patches: Array) -> Array:
    """Patches [B, N, P] before the normalization by channel, as the encoder sees them.

    The inverse of `recolor`.
    """
    factor, shift = (
      jnp.tile(jnp.float32(values), self.patches.dim // len(values))
      for values in (self.recolor.factor, self.recolor.shift)
    )
    return (patches - shift) / factor

  def replaced(self, mask: Mask, batch: Batch, step: Step) -> Array:
    """Which visible patches are replaced by their centroid: bool [B, N]."""

    def draw(key: Array, masked: Array) -> Array:
      noise = jax.random.uniform(key, masked.shape)
      return masking.highest(noise - masked, self.num_replaced)

    example_keys = keys.example_keys(keys.named(step.key, "replaced"), batch)
    return jax.vmap(draw)(example_keys, mask.masked)

  def reconstruct(
    self, variables: Variables, batch: Batch, step: Step
  ) -> dict[str, Array]:
    """Images as they are, masked without replacements, and with predicted pixels.

    All of them before the normalization by channel.
    """
    mask = self.mask(batch, step)
    _, pixels = self.apply(variables, self.patches(batch), mask, mask)
    return pictures(self, self.target, pixels, self.recolor(batch), mask)


def with_centroids(patches: Array, centroids: Array, replaced: Array) -> Array:
  """Patches of which some are replaced by their centroid.

  Args:
    patches: [B, N, P].
    centroids: the nearest of each patch, [B, N, P].
    replaced: bool [B, N].
  """
  return jnp.where(replaced[..., None], centroids, patches)


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
  colors: Colors | None = None,
  layer_scale: float = 0.1,
  **network: Unpack[Network],
) -> CCViT:
  """Makes CCViT from hyperparameters.

  Args:
    image_size: side, or (height, width), in pixels.
    channels: values a pixel.
    patch_size: side, or (height, width), in pixels.
    encoder: a size of `maskjax.models.VIT_SIZES`, or `width`, `depth`, `heads`.
    branch: of the branch for pixels: after how many of the encoder's blocks it begins,
      `early`, and how many of its own it has, `depth`; 9 and 2 when None.
    num_centroids: how many centroids there are; at most the patches of a batch.
    kmeans_steps: how often k-means moves the centroids.
    mask: name of a sampler of `maskjax.masking`, or an import path.
    mask_ratio: share of the patches that is masked.
    replace_ratio: share of all patches that is replaced by centroids.
    norm_pix_loss: normalize each target patch by its own mean and std.
    colors: `mean` and `std` of each channel by which the images of a batch are
      normalized, so that centroids and targets are of the pixels before that, as in the
      authors' code; None for those of the batch.
    layer_scale: see `maskjax.models.BlockOptions`.
    **network: see `maskjax.models.Network`.

  Raises:
    UserError: a shape, a branch, a count or a ratio that does not fit; names it.

  Example:
    >>> system = ccvit()
    >>> system.masking.num_masked, system.num_replaced
    (75, 20)
  """
  patches = patches_of(image_size, patch_size, channels=channels)
  network = {"initialization": "beit_v2", **network}
  vit = vit_encoder(
    grid=patches.grid,
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
  if not 0 < replace_ratio < 1 - mask_ratio:
    raise UserError(
      f"replace_ratio={replace_ratio}: expected more than 0 and less than the share of "
      f"patches that mask_ratio={mask_ratio} leaves visible"
    )
  target = Pixels(patch_size=patches.size, channels=channels, normalized=norm_pix_loss)
  return CCViT(
    model=TwoBranches(
      encoder=vit,
      num_centroids=num_centroids,
      patch_dim=target.size,
      early=of_branch["early"],
      branch_depth=of_branch["depth"],
    ),
    patches=patches,
    masking=masking_of(patches.grid, mask, mask_ratio),
    target=target,
    recolor=recolor(colors and {"mean": 0.0, "std": 1.0}, colors),
    num_replaced=masking.num_masked(patches.length, replace_ratio),
    kmeans_steps=kmeans_steps,
  )
