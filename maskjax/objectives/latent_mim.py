"""Latent MIM: latent masked image modelling for visual representations.

Hides nine tenths of an image's patches, which are cut out with gaps between them so
that neighbours tell less of each other, and has a decoder that attends to the codes of
the visible ones predict those of the hidden ones, as an average of the encoder over
past steps has them that sees the hidden patches alone. Each prediction has to find its
own target among all of its image, and codes of an image must be neither too alike nor
too different (https://arxiv.org/abs/2407.15837). Config: `configs/image/latent_mim.py`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from jax import Array

from maskjax import keys, masking, resolve
from maskjax.errors import UserError
from maskjax.losses import Loss, Mean, cross_entropy
from maskjax.masking import Mask, Sampler, samplers
from maskjax.models import (
  CueDecoder,
  LatentMaskedModel,
  NormedProjector,
  check_shape,
  vit_encoder,
)
from maskjax.objectives import teachers
from maskjax.objectives.images import image_batch_shapes, image_patches
from maskjax.objectives.objective import Batch, Variables, valid
from maskjax.objectives.teachers import Teacher
from maskjax.systems import System
from maskjax.targets import unit
from maskjax.tokens import grid_of, patchify
from maskjax.tokens.patches import pair

SYSTEM = System(
  name="latent_mim",
  family="image",
  paper="arXiv:2407.15837",
  config="configs/image/latent_mim.py",
  agrees_with="equations in NumPy",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentMim:
  """Tells the codes of an image's hidden patches from each other.

  Batches hold `image`, float32 [B, H, W, C], of a whole number of cells: a patch lies
  somewhere in each. All terms are of single images, so that no loss depends on what
  else is in a batch: the negatives are the other patches of the same image, and where
  the authors square how far the mean similarity of a batch is off, here each image's
  own is squared.

  Attributes:
    model: a `maskjax.models.LatentMaskedModel`.
    sampler: draws masks.
    num_hidden: how many patches it hides.
    patch_size: (height, width) in pixels.
    gap: how many pixels higher and wider the cells are.
    channels: values a pixel.
    teacher: sees the hidden patches.
    temperature: of the discrimination.
    similarity: what the mean cosine among an image's codes should be, first and last.
    similarity_weight: of the squared distance from that.
    num_steps: steps from the first to the last; 0 stays at the first.
  """

  model: LatentMaskedModel
  sampler: Sampler
  num_hidden: int
  patch_size: tuple[int, int]
  gap: int
  channels: int
  teacher: Teacher
  temperature: float
  similarity: tuple[float, float]
  similarity_weight: float
  num_steps: int

  @property
  def pretrained(self) -> dict[str, str]:
    """The teacher's run."""
    return {"teacher": self.teacher.workdir} if self.teacher.workdir else {}

  @property
  def grid(self) -> tuple[int, int]:
    """Rows and columns of patches."""
    return self.model.encoder.grid

  @property
  def cell(self) -> tuple[int, int]:
    """(height, width) of a cell in pixels."""
    return self.patch_size[0] + self.gap, self.patch_size[1] + self.gap

  @property
  def cell_dim(self) -> int:
    """Values in a cell."""
    return self.cell[0] * self.cell[1] * self.channels

  def batch_shapes(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of a batch of this many images."""
    return image_batch_shapes(batch_size, self.grid, self.cell, self.cell_dim)

  def init(self, key: Array, batch: Batch) -> Variables:
    """Parameters for images of the batch's shape, the teacher, and the steps done."""
    one = {name: rows[:1] for name, rows in batch.items()}
    variables = self.model.init(key, self.patches(one, key), self.mask(one, key))
    params = variables["params"]
    taught = self.teacher.init(averaged(params), keys.named(key, "teacher"), batch)
    return Variables(params, {"teacher": taught, "step": jnp.int32(0)})

  def patches(self, batch: Batch, key: Array) -> Array:
    """Cuts a patch out of each cell, at a place of its own: [B, N, P]."""
    cells = image_patches(batch, self.grid, self.cell, self.cell_dim)
    if not self.gap:
      return cells
    count, size = cells.shape[1], (*self.patch_size, self.channels)

    def cut(cell: Array, corner: Array) -> Array:
      first = (corner[0], corner[1], 0)
      return jax.lax.dynamic_slice(cell, first, size).ravel()

    def corners(key: Array) -> Array:
      return jax.random.randint(key, (count, 2), 0, self.gap)

    at = jax.vmap(corners)(keys.example_keys(keys.named(key, "corners"), batch))
    cells = cells.reshape(*cells.shape[:2], *self.cell, self.channels)
    return jax.vmap(jax.vmap(cut))(cells, at)

  def mask(self, batch: Batch, key: Array) -> Mask:
    """The masks of a batch's examples under a step's key."""
    example_keys = keys.example_keys(keys.named(key, "mask"), batch)
    return masking.draw(
      self.sampler, example_keys, self.grid, num_hidden=self.num_hidden
    )

  def loss(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """Discrimination of patches within each image, and its codes' similarity."""
    patches, mask = self.patches(batch, key), self.mask(batch, key)
    visible, predictions = cast(
      tuple[Array, Array], self.model.apply({"params": params}, patches, mask)
    )
    targets = self.targets_of(extra, batch, patches, mask)
    errors = discrimination(predictions, targets, temperature=self.temperature)
    first, last = self.similarity
    fall = optax.cosine_decay_schedule(1.0, max(1, self.num_steps))
    left = fall(extra["step"]) if self.num_steps else 1.0
    goal = last + (first - last) * left
    alike = {"predicted": mean_cosine(predictions), "visible": mean_cosine(visible)}
    off = sum(jnp.square(cosine - goal) for cosine in alike.values())
    each = errors.mean(axis=1) + self.similarity_weight * off
    where = valid(batch)
    similarities = {f"{k}_similarity": Mean.of(v, where) for k, v in alike.items()}
    return Loss.of(Mean.of(each, where), **similarities)

  def targets_of(self, extra: Any, batch: Batch, patches: Array, mask: Mask) -> Array:
    """The teacher's codes of the hidden patches: [B, M, D]."""

    def codes(params: Any, batch: Batch) -> Array:
      del batch
      inverse = mask.inverse()
      tokens = self.model.apply({"params": params}, patches, inverse, method="codes")
      seen = self.model.encoder.patch_tokens(cast(Array, tokens))
      unseen = jnp.zeros((*mask.visible_ids.shape, seen.shape[-1]), seen.dtype)
      return inverse.restore(seen, unseen)

    return mask.masked(self.teacher.features(codes, extra["teacher"], batch))

  def update_extra(self, params: Any, extra: Any, step: Array, sums: Any) -> Any:
    """Lets the teacher follow, and counts."""
    del sums
    taught = self.teacher.update(extra["teacher"], averaged(params), step)
    return {"teacher": taught, "step": jnp.int32(step + 1)}

  def features(self, params: Any, batch: Batch) -> Array:
    """Codes of all patches of the image made smaller, without gaps: [B, N, D]."""
    image_patches(batch, self.grid, self.cell, self.cell_dim)
    (rows, columns), (p, q) = self.grid, self.patch_size
    shape = (len(batch["image"]), rows * p, columns * q, self.channels)
    image = jax.image.resize(batch["image"], shape, "cubic")
    tokens = self.model.apply(
      {"params": params}, patchify(image, self.patch_size), method="encode"
    )
    return self.model.encoder.patch_tokens(cast(Array, tokens))


def averaged(params: Mapping[str, Any]) -> dict[str, Any]:
  """What of the student has a teacher: all but the decoder."""
  return {name: part for name, part in params.items() if name != "decoder"}


def discrimination(predictions: Array, targets: Array, *, temperature: float) -> Array:
  """How badly each prediction finds its own target among those of its image.

  Predictions are normalised channel by channel over the image's patches, so that what
  they share cannot help. The cross-entropy of the cosines over the temperature is
  multiplied by twice that, as in MoCo v3 (https://arxiv.org/abs/2104.02057).

  Args:
    predictions: [B, M, D] with M of at least 2.
    targets: [B, M, D].
    temperature: divides the cosines.

  Returns:
    float32 [B, M].
  """
  predictions = predictions.astype(jnp.float32)
  mean = predictions.mean(axis=1, keepdims=True)
  deviation = predictions.std(axis=1, keepdims=True, ddof=1)
  predictions = (predictions - mean) / (deviation + 1e-4)
  cosines = jnp.einsum("bmd,bnd->bmn", unit(predictions), unit(targets))
  own = jnp.broadcast_to(jnp.eye(targets.shape[1]), cosines.shape)
  return 2 * temperature * cross_entropy(cosines / temperature, own)


def mean_cosine(codes: Array) -> Array:
  """The mean cosine of all pairs of an image's codes: [B, M, D] to float32 [B]."""
  return jnp.square(unit(codes).mean(axis=1)).sum(axis=-1)


def latent_mim(
  *,
  image_size: int | Sequence[int] = 280,
  channels: int = 3,
  patch_size: int | Sequence[int] = 16,
  gap: int = 4,
  encoder: Mapping[str, Any] | str = "B",
  projector: Mapping[str, Any] | None = None,
  decoder: Mapping[str, Any] | None = None,
  teacher: Mapping[str, Any] | str = "ema",
  mask: str | Mapping[str, Any] = "random",
  mask_ratio: float = 0.9,
  temperature: float = 0.2,
  similarity: Sequence[float] = (0.75, 0.25),
  similarity_weight: float = 0.1,
  num_steps: int = 0,
  dtype: str = "float32",
  mlp_ratio: float = 4.0,
  norm_epsilon: float = 1e-6,
  scan: bool = False,
  remat: str = "none",
) -> LatentMim:
  """Makes Latent MIM from hyperparameters.

  Args:
    image_size: side, or (height, width), in pixels, a multiple of patch and gap.
    channels: values a pixel.
    patch_size: side, or (height, width), in pixels.
    gap: mean pixels between patches; `features` sees none, in smaller images.
    encoder: a size of `maskjax.models.VIT_SIZES`, or `width`, `depth`, `heads`.
    projector: `hidden` width and `depth`; 4096 and 3 when None.
    decoder: `width`, `depth`, `heads`; 512, 3 and 16 when None.
    teacher: see `maskjax.objectives.teachers`; the paper's `decay` of `ema` rises from
      0.99 to 1 along a cosine.
    mask: name of a sampler of `maskjax.masking`, or an import path.
    mask_ratio: share of the patches that is hidden.
    temperature: of the discrimination.
    similarity: mean cosine that an image's codes should have, at first and at last.
    similarity_weight: of the squared distance from that; 0 for none.
    num_steps: steps over which `similarity` falls along a cosine; the run's.
    dtype: type of the computation; parameters are float32.
    mlp_ratio: hidden width of the blocks' networks by their width.
    norm_epsilon: added to the variance in layer normalisation.
    scan: compile one block and loop over it, see `maskjax.models.Transformer`.
    remat: `none`, `dots` or `full`: which activations are computed again in the
      backward pass, see `maskjax.models.Transformer`.

  Raises:
    UserError: hyperparameters that do not fit each other; names them.

  Example:
    >>> latent_mim(image_size=35, patch_size=4, gap=1, encoder="Ti").grid
    (7, 7)
  """
  patch = pair(patch_size)
  if gap < 0:
    raise UserError(f"gap={gap}: expected at least 0 pixels")
  if temperature <= 0 or similarity_weight < 0:
    raise UserError(
      f"temperature={temperature}, similarity_weight={similarity_weight}: expected "
      "above 0, and at least 0"
    )
  if len(similarity) != 2 or not all(-1 <= value <= 1 for value in similarity):
    raise UserError(f"similarity={tuple(similarity)}: expected two cosines")
  rows, columns = grid_of(image_size, (patch[0] + gap, patch[1] + gap))
  vit = vit_encoder(
    image_size=(rows * patch[0], columns * patch[1]),
    patch_size=patch,
    encoder=encoder,
    dtype=dtype,
    norm_epsilon=norm_epsilon,
    mlp_ratio=mlp_ratio,
    scan=scan,
    remat=remat,
  )
  num_hidden = masking.num_hidden(rows * columns, mask_ratio)
  if num_hidden < 2:
    raise UserError(f"mask_ratio={mask_ratio}: expected at least 2 hidden patches")
  layers = {"hidden": 4096, "depth": 3, **(projector or {})}
  if set(layers) != {"hidden", "depth"} or min(layers.values()) < 1:
    raise UserError(f"projector={layers}: expected `hidden` and `depth`, each above 0")
  shape = {"width": 512, "depth": 3, "heads": 16, **(decoder or {})}
  first, last = similarity
  return LatentMim(
    model=LatentMaskedModel(
      encoder=vit,
      projector=NormedProjector(**layers, norm_epsilon=norm_epsilon, dtype=vit.dtype),
      decoder=CueDecoder(
        grid=vit.grid,
        size=vit.width,
        norm_epsilon=norm_epsilon,
        options=vit.options,
        dtype=vit.dtype,
        **check_shape("decoder", shape),
      ),
    ),
    sampler=resolve.bind(samplers, mask),
    num_hidden=num_hidden,
    patch_size=patch,
    gap=gap,
    channels=channels,
    teacher=resolve.build(teachers, teacher),
    temperature=temperature,
    similarity=(first, last),
    similarity_weight=similarity_weight,
    num_steps=num_steps,
  )
