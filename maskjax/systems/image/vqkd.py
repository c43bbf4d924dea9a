"""VQ-KD: the tokenizer of BEiT v2, by vector-quantized knowledge distillation.

BEiT's codes told the colors of a patch; these are learned by telling a teacher's
features from them, so that they say what is seen there. A ViT gives each patch a
short vector of length 1, the nearest one of a codebook takes its place, and a light
decoder predicts the teacher's features from those by their cosine. Gradients pass the
lookup unchanged, and codes follow the vectors that choose them as moving averages
(https://arxiv.org/abs/2208.06366, section 2.2). Config: `configs/image/vqkd.py`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Unpack, cast

import jax
import jax.numpy as jnp
from jax import Array

from maskjax import keys, resolve
from maskjax.errors import UserError
from maskjax.losses import Loss, Mean, cosine_error, squared_error
from maskjax.models import CodeAutoencoder, Network, check_shape, vit_encoder
from maskjax.objectives import teachers
from maskjax.objectives.images import PatchObjective
from maskjax.objectives.objective import Batch, Variables, valid
from maskjax.objectives.teachers import Teacher, features_width
from maskjax.systems.system import System
from maskjax.targets import codebook, nearest
from maskjax.tokens.patches import per_side

SYSTEM = System(
  name="vqkd",
  family="image",
  paper="arXiv:2208.06366",
  config="configs/image/vqkd.py",
  agrees_with="equations in NumPy",
)

# How many vectors a code begins as the center of, on average.
VECTORS_A_CODE = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vqkd(PatchObjective):
  """The tokenizer's objective; `vqkd` makes it from hyperparameters.

  Its codebook, in `extra`, is a `maskjax.targets.codebook.Codebook`.

  Attributes:
    model: gives vectors of patches, and predicts the teacher from codes.
    teacher: whose features.
    num_codes: K.
    decay: of the codebook's moving averages.
    commitment: weight of the vectors' distance to their codes.
  """

  teacher: Teacher
  num_codes: int
  decay: float
  commitment: float

  @property
  def pretrained(self) -> dict[str, str]:
    """The teacher's run, see `maskjax.objectives.Objective`."""
    return {"teacher": self.teacher.workdir} if self.teacher.workdir else {}

  def init(self, key: Array, batch: Batch) -> Variables:
    """Parameters, the teacher's arrays, and codes in the midst of vectors."""
    patches = self.patches(batch)
    params = self.model.init(key, patches[:1])["params"]
    # Vectors by their examples' own numbers, whatever the order of these.
    noise = jax.vmap(lambda k: jax.random.uniform(k, patches.shape[1:2]))(
      keys.example_keys(keys.named(key, "codebook"), batch)
    )
    wanted = -(-VECTORS_A_CODE * self.num_codes // patches.shape[1])
    rows = noise[:, 0].argsort()[jnp.arange(wanted) % len(noise)]
    vectors = self.vectors(params, {"image": jnp.asarray(batch["image"])[rows]})
    first = noise[rows].ravel().argsort()[: self.num_codes]
    extra = {
      "teacher": self.teacher.init(params, keys.named(key, "teacher"), batch),
      "codebook": codebook.clustered(vectors, first),
    }
    return Variables(params, extra)

  def loss(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """How far off the teacher is told, and vectors are from their codes."""
    del key
    book, where = extra["codebook"], valid(batch)[:, None]
    vectors = self.vectors(params, batch)
    codes, _ = nearest(vectors, book["vectors"])
    chosen = book["vectors"][codes]
    # The decoder sees the code; its gradient reaches the vector.
    through = vectors + jax.lax.stop_gradient(chosen - vectors)
    predictions = self.model.apply({"params": params}, through, method="decode")
    features = self.teacher.features(self.features, extra["teacher"], batch)
    told = cosine_error(cast(Array, predictions), features)
    far = squared_error(vectors, chosen)
    loss = Loss.of(
      Mean.of(told + self.commitment * far, where),
      distillation=Mean.of(told, where),
      commitment=Mean.of(far, where),
      perplexity=Mean.of(codebook.perplexity(book)),
    )
    return dataclasses.replace(
      loss, sums=codebook.members(vectors, codes, self.num_codes, where)
    )

  def update_extra(
    self, params: Any, extra: Any, step: Array, sums: Mapping[str, Array]
  ) -> dict[str, Any]:
    """Moves the codes toward the vectors of the step that chose them."""
    return {
      "teacher": self.teacher.update(extra["teacher"], params, step),
      "codebook": codebook.moved(extra["codebook"], sums, self.decay),
    }

  def codes(self, params: Any, book: codebook.Codebook, batch: Batch) -> Array:
    """The codes of whole images: int32 [B, N]."""
    return nearest(self.vectors(params, batch), book["vectors"])[0]

  def vectors(self, params: Any, batch: Batch) -> Array:
    """What is compared with codes: float32 [B, N, C] of length 1."""
    patches = self.patches(batch)
    vectors = self.model.apply({"params": params}, patches, method="vectors")
    return cast(Array, vectors)


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
) -> Vqkd:
  """Makes VQ-KD from hyperparameters.

  Args:
    teacher: one of `maskjax.objectives.teachers`, `frozen` in the paper, with its
      keywords. It gives features of each patch, and is given the same images.
    image_size: side, or (height, width), in pixels.
    channels: values a pixel.
    patch_size: side, or (height, width), in pixels.
    encoder: a size of `maskjax.models.VIT_SIZES`, or `width`, `depth`, `heads`.
    decoder: `width`, `depth`, `heads`; 3 blocks, and else as the encoder, where left
      out.
    num_codes: size of the codebook.
    code_dim: channels of a code.
    decay: of the moving averages that codes are.
    commitment: weight of the squared distance of a patch's vector to its code, a mean
      over channels as in the authors' code.
    **network: see `maskjax.models.Network`.

  Raises:
    UserError: hyperparameters that do not fit each other; names them.
  """
  if min(num_codes, code_dim) < 2:
    raise UserError(f"num_codes={num_codes}, code_dim={code_dim}: expected at least 2")
  if not 0 <= decay < 1 or commitment < 0:
    raise UserError(
      f"decay={decay}, commitment={commitment}: expected none below 0, and a decay "
      "below 1"
    )
  vit = vit_encoder(
    image_size=image_size,
    patch_size=patch_size,
    encoder=encoder,
    positions="learned",
    key_bias=False,
    **network,
  )
  shape = {"width": vit.width, "depth": 3, "heads": vit.heads, **(decoder or {})}
  patch = per_side(patch_size)
  taught_by: Teacher = resolve.build(teachers, teacher)
  return Vqkd(
    model=CodeAutoencoder(
      encoder=vit,
      decoder=vit.clone(**check_shape("decoder", shape)),
      code_dim=code_dim,
      size=features_width(taught_by, vit, patch, channels),
    ),
    teacher=taught_by,
    num_codes=num_codes,
    decay=decay,
    commitment=commitment,
    patch_size=patch,
    channels=channels,
  )
