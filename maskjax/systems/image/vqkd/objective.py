"""The objective of VQ-KD, and the function that makes it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Unpack, cast

import jax
import jax.numpy as jnp
from jax import Array

from maskjax import keys
from maskjax.errors import UserError
from maskjax.losses import Loss, Mean, cosine_error, squared_error
from maskjax.models import Network, check_shape, vit_encoder
from maskjax.objectives import teachers
from maskjax.objectives.objective import Batch, Step, Variables, valid
from maskjax.objectives.patches import PatchObjective
from maskjax.objectives.teachers import Teacher
from maskjax.systems.image.vqkd import codebook
from maskjax.systems.image.vqkd.network import CodeAutoencoder
from maskjax.targets import nearest
from maskjax.tokens import patches_of

# How many vectors there are for each center of the first codebook, on average.
VECTORS_A_CODE = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class VqKd(PatchObjective):
  """The objective of VQ-KD; `vqkd` makes it from hyperparameters.

  The entry `codebook` of `extra` is a `maskjax.systems.image.vqkd.codebook.Codebook`.

  Attributes:
    model: a `maskjax.systems.image.vqkd.network.CodeAutoencoder`.
    teacher: gives the features that are predicted.
    num_codes: size K of the codebook.
    decay: of the codebook's moving averages.
    commitment: weight of the error between vectors and the codebook.
  """

  teacher: Teacher
  num_codes: int
  decay: float
  commitment: float

  @property
  def grid(self) -> tuple[int, ...]:
    """Sides of the grid of codes of an example, one for each patch."""
    return self.patches.grid

  @property
  def pretrained(self) -> Mapping[str, str]:
    """The teacher's run."""
    return self.teacher.pretrained

  def init(self, key: Array, batch: Batch) -> Variables:
    """Parameters, the teacher, and a codebook of centers of this batch's vectors."""
    patches = self.patches(batch)
    params = self.model.init(key, patches[:1])["params"]
    # Vectors by their examples' own numbers, whatever the order of these.
    noise = jax.vmap(lambda k: jax.random.uniform(k, patches.shape[1:2]))(
      keys.example_keys(keys.named(key, "codebook"), batch)
    )
    needed = -(-VECTORS_A_CODE * self.num_codes // patches.shape[1])
    rows = noise[:, 0].argsort()[jnp.arange(needed) % len(noise)]
    images = jnp.asarray(batch[self.patches.name])[rows]
    vectors = self.vectors(Variables(params), {self.patches.name: images})
    first = noise[rows].ravel().argsort()[: self.num_codes]
    extra = {
      "teacher": self.teacher.init(params, key, batch),
      "codebook": codebook.clustered(vectors, first),
    }
    return Variables(params, extra)

  def loss(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """Cosine error of the teacher's features, and error of vectors and codebook."""
    del step
    book, where = variables.extra["codebook"], valid(batch)[:, None]
    vectors = self.vectors(variables, batch)
    codes, _ = nearest(vectors, book["vectors"])
    chosen = book["vectors"][codes]
    quantized = straight_through(vectors, chosen)
    predictions = cast(Array, self.apply(variables, quantized, method="decode"))
    taught = variables.extra["teacher"]
    features = self.teacher.features(self.features, taught, batch)
    distillation = cosine_error(predictions, features)
    commitment = squared_error(vectors, chosen)
    loss = Loss.of(
      Mean.of(distillation + self.commitment * commitment, where),
      distillation=Mean.of(distillation, where),
      commitment=Mean.of(commitment, where),
      perplexity=Mean.of(codebook.perplexity(book)),
    )
    return dataclasses.replace(
      loss, sums=codebook.members(vectors, codes, self.num_codes, where)
    )

  def update(
    self, variables: Variables, batch: Batch, step: Step, sums: Mapping[str, Any]
  ) -> Variables:
    """Moves the teacher, and the codebook toward the vectors that chose its codes."""
    params, extra = variables
    return Variables(
      params,
      {
        "teacher": self.teacher.update(extra["teacher"], params, step),
        "codebook": codebook.moved(extra["codebook"], sums, self.decay),
      },
    )

  def codes(self, variables: Variables, batch: Batch) -> Array:
    """The codes of whole images: int32 [B, N], from 0 to K - 1."""
    book = variables.extra["codebook"]
    return nearest(self.vectors(variables, batch), book["vectors"])[0]

  def vectors(self, variables: Variables, batch: Batch) -> Array:
    """What is compared with the codebook: float32 [B, N, C] of length 1."""
    found = self.apply(variables, self.patches(batch), method="vectors")
    return cast(Array, found)


def straight_through(vectors: Array, chosen: Array) -> Array:
  """The chosen codebook vectors, whose gradient reaches the vectors that chose them.

  Args:
    vectors: [B, N, C].
    chosen: [B, N, C].

  Example:
    >>> x = jnp.array([0.5])
    >>> jax.grad(lambda x: straight_through(x, jnp.array([2.0]))[0])(x).tolist()
    [1.0]
  """
  return vectors + jax.lax.stop_gradient(chosen - vectors)


def vqkd(
  *,
  teacher: str | Mapping[str, Any],
  image_size: int | Sequence[int] = 224,
  channels: int = 3,
  patch_size: int | Sequence[int] = 16,
  encoder: Mapping[str, Any] | str = "B",
  decoder: Mapping[str, Any] | None = None,
  num_codes: int = 8192,
  code_dim: int = 32,
  decay: float = 0.99,
  commitment: float = 1.0,
  **network: Unpack[Network],
) -> VqKd:
  """Makes VQ-KD from hyperparameters.

  Args:
    teacher: a teacher of `maskjax.objectives.teachers`, `frozen` in the paper, with its
      keywords. It gives features of each patch, of the same images.
    image_size: side, or (height, width), in pixels.
    channels: values a pixel.
    patch_size: side, or (height, width), in pixels.
    encoder: a size of `maskjax.models.VIT_SIZES`, or `width`, `depth`, `heads`.
    decoder: `width`, `depth`, `heads`; 3 blocks, and else as the encoder, where left
      out.
    num_codes: size of the codebook.
    code_dim: channels of a codebook vector.
    decay: of the moving averages that the codebook consists of.
    commitment: weight of the squared error between a patch's vector and the nearest of
      the codebook, a mean over channels as in the authors' code.
    **network: see `maskjax.models.Network`.

  Raises:
    UserError: a shape, a decay, a weight or a teacher that does not fit; names it.

  Example:
    >>> system = vqkd(
    ...   teacher="ema", image_size=8, channels=1, patch_size=2, encoder="Ti"
    ... )
    >>> system.grid, system.num_codes
    ((4, 4), 8192)
  """
  if min(num_codes, code_dim) < 2:
    raise UserError(f"num_codes={num_codes}, code_dim={code_dim}: expected at least 2")
  if not 0 <= decay < 1 or commitment < 0:
    raise UserError(
      f"decay={decay}, commitment={commitment}: expected none below 0, and a decay "
      "below 1"
    )
  patches = patches_of(image_size, patch_size, channels=channels)
  network = {"initialization": "vqkd", **network}
  vit = vit_encoder(
    grid=patches.grid,
    encoder=encoder,
    positions="learned",
    key_bias=False,
    **network,
  )
  shape = {"width": vit.width, "depth": 3, "heads": vit.heads, **(decoder or {})}
  built = teachers.build(teacher)
  return VqKd(
    model=CodeAutoencoder(
      encoder=vit,
      decoder=vit.clone(**check_shape("decoder", shape)),
      code_dim=code_dim,
      size=teachers.features_width(built, vit, patches),
    ),
    patches=patches,
    teacher=built,
    num_codes=num_codes,
    decay=decay,
    commitment=commitment,
  )
