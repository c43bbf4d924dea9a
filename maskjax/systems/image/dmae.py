"""DMAE: masked autoencoders enable efficient knowledge distillers.

MAE that also learns from a larger MAE: besides predicting pixels, it matches the hidden
states of one block of its encoder at the visible patches to those of a block of the
teacher. They are projected to the teacher's width, both are divided by their lengths,
and compared by an L1 error. The teacher encodes the visible patches only, and runs no
further than that block (https://arxiv.org/abs/2208.12256). Config:
`configs/image/dmae.py`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from maskjax.errors import UserError, at_least_one
from maskjax.losses import Loss, Mean, absolute_error, squared_error
from maskjax.masking import Mask, masking_of
from maskjax.models import Decoder, Network, decoder_of, vit_encoder
from maskjax.models.dense import Dense
from maskjax.models.encoder_model import EncoderModel
from maskjax.models.gelu import gelu
from maskjax.models.initialization import LayerInit
from maskjax.objectives import teachers
from maskjax.objectives.objective import Batch, Step, Variables, valid
from maskjax.objectives.patches import PatchObjective
from maskjax.objectives.reconstruction import pictures
from maskjax.objectives.teachers import Teacher
from maskjax.systems.system import System
from maskjax.targets import Pixels, Target, unit
from maskjax.tokens import patches_of

SYSTEM = System(
  name="dmae",
  family="image",
  paper="arXiv:2208.12256",
  config="configs/image/dmae.py",
  agrees_with="transformers ViTModel and PyTorch",
  differs=(
    "The teacher stops at its aligned block, as in the paper; the authors' code runs "
    "all of it.",
  ),
)


class Projector(nn.Module):
  """Maps tokens to another width by dense layers with GELUs between them.

  Attributes:
    size: width T of the result, and of hidden layers.
    depth: number of layers.
    drawn: how they are, at first.
    dtype: type of the computation.
  """

  size: int
  depth: int = 1
  drawn: LayerInit = LayerInit()
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[B, N, D] to [B, N, T]."""
    for i in range(self.depth):
      x = gelu(x) if i else x
      fields = self.drawn._asdict()
      x = Dense(self.size, **fields, dtype=self.dtype, name=f"dense_{i}")(x)
    return x


class AlignedAutoencoder(EncoderModel):
  """MAE's network with a projector on one of the encoder's blocks (paper, section 3).

  Attributes:
    encoder: encodes the visible patches only.
    decoder: sees their features and mask tokens.
    projector: maps the block's tokens to the teacher's width.
    layer: the block's number, from 1.
  """

  decoder: Decoder
  projector: Projector
  layer: int

  def __call__(self, patches: Array, mask: Mask, visible_too: bool = False) -> Array:
    """Predicts masked patches: [B, N, P] to float32 [B, M, P], see `Decoder`."""
    return self.predict_and_project(patches, mask, visible_too)[0]

  def predict_and_project(
    self, patches: Array, mask: Mask, visible_too: bool = False
  ) -> tuple[Array, Array]:
    """Predictions as `__call__` gives them, and the block's tokens [B, 1 + V, T]."""
    tokens = self.encoder.every_block(patches, mask)
    predictions = self.decoder(tokens[-1], mask, visible_too)
    return predictions, self.projector(tokens[self.layer - 1])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dmae(PatchObjective):
  """The objective of DMAE; `dmae` makes it from hyperparameters.

  Attributes:
    teacher: see `maskjax.objectives.teachers`.
    teacher_layer: number of the teacher's block, from 1; it runs no further.
    target: what is predicted of masked patches.
    error: of each token, from two [B, M, T] to [B, M].
  """

  teacher: Teacher
  teacher_layer: int
  target: Target
  error: Callable[[Array, Array], Array]

  @property
  def pretrained(self) -> Mapping[str, str]:
    """The teacher's run."""
    return self.teacher.pretrained

  def init(self, key: Array, batch: Batch) -> Variables:
    """Parameters for images of the batch's shape, and the teacher."""
    params = self.init_params(key, batch)
    return Variables(params, {"teacher": self.teacher.init(params, key, batch)})

  def loss(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """Error of the masked patches, plus distance from the teacher at the visible ones.

    Both are means of each example.
    """
    mask = self.mask(batch, step)
    predictions, own = self.apply(
      variables, self.patches(batch), mask, method="predict_and_project"
    )
    taught = self.teacher.layers(
      self, variables.extra["teacher"], batch, mask, depth=self.teacher_layer
    ).tokens[-1]
    # A class token stands first; it counts where both have one.
    count = min(own.shape[1], taught.shape[1])
    distances = absolute_error(unit(own[:, -count:]), unit(taught[:, -count:]))
    distances = distances.mean(axis=1)
    errors = self.error(predictions, mask.take_masked(self.targets(batch)))
    errors = errors.mean(axis=1)
    where = valid(batch)
    return Loss.of(
      Mean.of(errors + distances, where),
      reconstruction=Mean.of(errors, where),
      distillation=Mean.of(distances, where),
    )

  def update(
    self, variables: Variables, batch: Batch, step: Step, sums: Mapping[str, Any]
  ) -> Variables:
    """Updates the teacher, where it is an average."""
    params, extra = variables
    teacher = self.teacher.update(extra["teacher"], params, step)
    return Variables(params, {**extra, "teacher": teacher})

  def targets(self, batch: Batch) -> Array:
    """What is to be predicted at each patch: [B, N, T]."""
    return self.target(batch[self.patches.name])

  def reconstruct(
    self, variables: Variables, batch: Batch, step: Step
  ) -> dict[str, Array]:
    """See `maskjax.objectives.reconstruction.pictures`."""
    mask = self.mask(batch, step)
    predictions = self.apply(variables, self.patches(batch), mask)
    return pictures(self, self.target, predictions, batch, mask)


def dmae(
  *,
  teacher: Mapping[str, Any] | str,
  image_size: int | Sequence[int] = 224,
  channels: int = 3,
  patch_size: int | Sequence[int] = 16,
  encoder: Mapping[str, Any] | str = "B",
  decoder: Mapping[str, Any] | None = None,
  mask: str | Mapping[str, Any] = "random",
  mask_ratio: float = 0.75,
  norm_pix_loss: bool = False,
  layer: int | None = None,
  teacher_layer: int | None = None,
  projector_depth: int = 1,
  **network: Unpack[Network],
) -> Dmae:
  """Makes DMAE from hyperparameters.

  Args:
    teacher: a teacher of `maskjax.objectives.teachers`, with its keywords; it has to
      have layers.
    image_size: side, or (height, width), in pixels.
    channels: values a pixel.
    patch_size: side, or (height, width), in pixels.
    encoder: a size of `maskjax.models.VIT_SIZES`, or `width`, `depth`, `heads`.
    decoder: `width`, `depth`, `heads`; 512, 8 and 16 when None.
    mask: name of a sampler of `maskjax.masking`, or an import path.
    mask_ratio: share of the patches that is masked.
    norm_pix_loss: normalize each target patch by its own mean and std.
    layer: which block of the encoder learns from the teacher, counted from 1; the one
      at three quarters of its depth when None.
    teacher_layer: from which block of the teacher; the same when None.
    projector_depth: dense layers from the encoder's channels to the teacher's.
    **network: see `maskjax.models.Network`.

  Raises:
    UserError: a size, a block, or a teacher without layers or that encodes masked
      patches; names it.

  Example:
    >>> system = dmae(
    ...   teacher="ema", image_size=8, channels=1, patch_size=2, encoder="Ti"
    ... )
    >>> system.model.layer, system.teacher_layer
    (9, 9)
  """
  at_least_one(projector_depth=projector_depth)
  patches = patches_of(image_size, patch_size, channels=channels)
  network = {"initialization": "dmae", **network}
  vit = vit_encoder(grid=patches.grid, encoder=encoder, **network)
  target = Pixels(patch_size=patches.size, channels=channels, normalized=norm_pix_loss)
  masking = masking_of(patches.grid, mask, mask_ratio)
  built = teachers.build(teacher)
  num_visible = patches.length - masking.num_masked
  shapes = teachers.layer_shapes(built, vit, patches, num_masked=masking.num_masked)
  if shapes[-1][1] - num_visible not in (0, 1):
    raise UserError(
      f"teacher sees {shapes[-1][1]} tokens where {num_visible} patches are "
      "visible: expected an encoder that sees no others, as MAE's does"
    )
  return Dmae(
    model=AlignedAutoencoder(
      encoder=vit,
      decoder=decoder_of(vit, decoder, patch_dim=target.size),
      projector=Projector(
        size=shapes[-1][2],
        depth=projector_depth,
        drawn=vit.options.further.drawn.inner,
        dtype=vit.dtype,
      ),
      layer=_layer("layer", layer, vit.depth),
    ),
    patches=patches,
    masking=masking,
    teacher=built,
    teacher_layer=_layer("teacher_layer", teacher_layer, len(shapes)),
    target=target,
    error=squared_error,
  )


def _layer(key: str, layer: int | None, depth: int) -> int:
  """Reads the number of a block, by default at three quarters of the depth."""
  layer = max(1, 3 * depth // 4) if layer is None else layer
  if not 1 <= layer <= depth:
    raise UserError(f"{key}={layer}: expected a block from 1 to {depth}")
  return layer
