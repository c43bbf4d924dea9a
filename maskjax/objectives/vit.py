"""A plain vision transformer that learns nothing here: a teacher from elsewhere.

`maskjax convert` fills it with the weights of CLIP's vision tower
(https://arxiv.org/abs/2103.00020), of ViTs as DINO trains them
(https://arxiv.org/abs/2104.14294), of DINOv2 (https://arxiv.org/abs/2304.07193) or of
I-JEPA's encoder (https://arxiv.org/abs/2301.08243). It has features and layers, and no
loss. Configs: `configs/image/teacher.py`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Unpack, cast

from jax import Array, ShapeDtypeStruct

from maskjax.errors import UserError
from maskjax.masking import Mask
from maskjax.models import Layers, Network, VisionEncoder, encoder_layers, vit_encoder
from maskjax.objectives.images import image_batch_shapes, image_patches
from maskjax.objectives.objective import Batch, Variables
from maskjax.resolve import did_you_mean
from maskjax.tokens.patches import pair

# What sets encoders apart, by the names that transformers gives them.
ENCODER_TYPES: Mapping[str, Mapping[str, Any]] = {
  "clip_vision_model": {
    "activation": "quick_gelu",
    "embed_bias": False,
    "embed_norm": True,
  },
  "dinov2": {"layer_scale": 1.0},
  "ijepa": {"class_token": False},
  "vit": {},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vit:
  """An encoder with features; `vit` makes it from hyperparameters.

  Batches hold `image`, float32 [B, H, W, C].

  Attributes:
    encoder: the network.
    patch_size: (height, width) in pixels.
    channels: values a pixel.
  """

  encoder: VisionEncoder
  patch_size: tuple[int, int]
  channels: int

  @property
  def patch_dim(self) -> int:
    """Values in a patch."""
    return self.patch_size[0] * self.patch_size[1] * self.channels

  def init(self, key: Array, batch: Batch) -> Variables:
    """Random parameters, into whose place those of others come."""
    patches = self.patches(batch)[:1]
    return Variables({"encoder": self.encoder.init(key, patches)["params"]})

  def patches(self, batch: Batch) -> Array:
    """The patches of a batch's images: [B, N, P]."""
    return image_patches(batch, self.encoder.grid, self.patch_size, self.patch_dim)

  def batch_shapes(self, batch_size: int) -> dict[str, ShapeDtypeStruct]:
    """The shapes of a batch of this many images."""
    return image_batch_shapes(
      batch_size, self.encoder.grid, self.patch_size, self.patch_dim
    )

  def features(self, params: Any, batch: Batch) -> Array:
    """Codes of all patches, after the last normalization: [B, N, D]."""
    variables = {"params": params["encoder"]}
    tokens = self.encoder.apply(variables, self.patches(batch))
    return self.encoder.patch_tokens(cast(Array, tokens))

  def layers(
    self, params: Any, batch: Batch, mask: Mask | None = None, **asked: Any
  ) -> Layers:
    """What the blocks say, see `maskjax.models.encoder_layers`."""
    patches = self.patches(batch)
    return encoder_layers(self.encoder, params["encoder"], patches, mask, **asked)


def vit(
  *,
  encoder_type: str = "vit",
  image_size: int | Sequence[int] = 224,
  channels: int = 3,
  patch_size: int | Sequence[int] = 16,
  encoder: Mapping[str, Any] | str = "B",
  activation: str | None = None,
  **network: Unpack[Network],
) -> Vit:
  """Makes an encoder from hyperparameters.

  Args:
    encoder_type: `vit`; `clip_vision_model`, with a normalization before the first
      block and its own GELU; `dinov2`, with scaled branches; or `ijepa`, without a
      class token.
    image_size: side, or (height, width), in pixels.
    channels: values a pixel.
    patch_size: side, or (height, width), in pixels.
    encoder: a size of `maskjax.models.VIT_SIZES`, or `width`, `depth`, `heads`.
    activation: a name in `maskjax.models.gelu.ACTIVATIONS`; the type's own when None.
    **network: see `maskjax.models.Network`.

  Raises:
    UserError: hyperparameters that do not fit each other; names them.

  Example:
    >>> vit(encoder_type="dinov2", patch_size=14, encoder="S").encoder.grid
    (16, 16)
  """
  if encoder_type not in ENCODER_TYPES:
    hint = did_you_mean(encoder_type, ENCODER_TYPES)
    raise UserError(f"encoder_type={encoder_type!r}: {hint}")
  own = dict(ENCODER_TYPES[encoder_type])
  if activation is not None:
    own["activation"] = activation
  built = vit_encoder(
    image_size=image_size,
    patch_size=patch_size,
    encoder=encoder,
    positions="learned",
    **own,
    **network,
  )
  return Vit(encoder=built, patch_size=pair(patch_size), channels=channels)
