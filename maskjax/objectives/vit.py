"""A plain vision transformer that learns nothing here: a teacher from elsewhere.

`maskjax convert` fills it with the weights of CLIP's vision tower
(https://arxiv.org/abs/2103.00020), of ViTs as DINO trains them
(https://arxiv.org/abs/2104.14294), of DINOv2 (https://arxiv.org/abs/2304.07193) or of
I-JEPA's encoder (https://arxiv.org/abs/2301.08243). It has features and layers, and no
loss. Configs: `configs/image/teacher.py`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from flax import linen as nn
from jax import Array

from maskjax import keys
from maskjax.errors import UserError, did_you_mean
from maskjax.masking import Mask
from maskjax.models import Network, VisionEncoder, encoder_layers, vit_encoder
from maskjax.models.layers import Layers
from maskjax.objectives.objective import Batch, Variables, first_example
from maskjax.tokens import Patches, patches_of

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
    patches: cuts images into patches.
    projection: channels of CLIP's space of images and texts, into which its own
      projection takes the features; 0 for features as the encoder gives them.
  """

  encoder: VisionEncoder
  patches: Patches
  projection: int = 0

  def init(self, key: Array, batch: Batch) -> Variables:
    """Random parameters, which pretrained ones replace."""
    patches = self.patches(first_example(batch))
    params = {"encoder": self.encoder.init(key, patches)["params"]}
    if self.projection:
      shape = self.encoder.width, self.projection
      kernel = nn.initializers.lecun_normal()(keys.named(key, "project"), shape)
      params["project"] = {"kernel": kernel}
    return Variables(params)

  def batch_shapes(self, batch_size: int) -> dict[str, Any]:
    """The shapes of a batch of this many images."""
    return self.patches.batch_shapes(batch_size)

  def features(self, variables: Variables, batch: Batch) -> Array:
    """Features of all patches, after the last normalization: [B, N, D].

    With a `projection`, [B, N, projection]: CLIP projects the class token alone; here
    it is all patches, as in systems that learn from CLIP
    (https://arxiv.org/abs/2208.06366).
    """
    params = {"params": variables.params["encoder"]}
    tokens: Any = self.encoder.apply(params, self.patches(batch))
    features = self.encoder.patch_tokens(tokens)
    if self.projection:
      features = features @ variables.params["project"]["kernel"].astype(features.dtype)
    return features

  def layers(
    self,
    variables: Variables,
    batch: Batch,
    mask: Mask | None = None,
    *,
    depth: int | None = None,
    attention: bool = False,
  ) -> Layers:
    """Hidden states of the blocks, see `maskjax.models.encoder_layers`."""
    params, patches = variables.params["encoder"], self.patches(batch)
    return encoder_layers(
      self.encoder, params, patches, mask, depth=depth, attention=attention
    )


def vit(
  *,
  encoder_type: str = "vit",
  image_size: int | Sequence[int] = 224,
  channels: int = 3,
  patch_size: int | Sequence[int] = 16,
  encoder: Mapping[str, Any] | str = "B",
  activation: str | None = None,
  projection: int = 0,
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
    projection: channels into which CLIP projects its features, 512 of its ViT-B, for
      features [B, N, projection]; 0 for features before it.
    **network: see `maskjax.models.Network`.

  Raises:
    UserError: no such type, or a size or shape that cannot be; names it.

  Example:
    >>> vit(encoder_type="dinov2", patch_size=14, encoder="S").encoder.grid
    (16, 16)
  """
  if encoder_type not in ENCODER_TYPES:
    hint = did_you_mean(encoder_type, ENCODER_TYPES)
    raise UserError(f"encoder_type={encoder_type!r}: {hint}")
  if projection < 0 or (projection and encoder_type != "clip_vision_model"):
    raise UserError(
      f"projection={projection}: expected 0, or more of encoder_type="
      "'clip_vision_model'"
    )
  own = dict(ENCODER_TYPES[encoder_type])
  if activation is not None:
    own["activation"] = activation
  patches = patches_of(image_size, patch_size, channels=channels)
  built = vit_encoder(
    grid=patches.grid,
    encoder=encoder,
    positions="learned",
    **own,
    **network,
  )
  return Vit(encoder=built, patches=patches, projection=projection)
