"""SimMIM: a simple framework for masked image modeling.

Masks units of 32x32 pixels, larger than a patch, replaces them by a learned token
inside the encoder, and predicts the raw pixels of what is masked by one linear layer,
with an absolute error. All positions keep a token, so that the encoder may be a
hierarchical one in place of a ViT (https://arxiv.org/abs/2111.09886). Config:
`configs/image/simmim.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from maskjax import resolve
from maskjax.errors import UserError, did_you_mean
from maskjax.losses import absolute_error
from maskjax.masking import Masking, num_masked_in_units, samplers
from maskjax.models import (
  MaskedEncoder,
  SwinEncoder,
  VisionEncoder,
  swin_encoder,
  vit_encoder,
)
from maskjax.objectives.reconstruction import Reconstruction
from maskjax.systems.system import System
from maskjax.targets import Pixels
from maskjax.tokens import Patches, patches_of
from maskjax.tokens.patches import per_side

SYSTEM = System(
  name="simmim",
  family="image",
  paper="arXiv:2111.09886",
  config="configs/image/simmim.py",
  agrees_with="transformers ViT, Swin and Swinv2ForMaskedImageModeling",
  differs=(
    "SwinV2-H has no released config: it is trained as Swin-B, in windows of 12. The "
    "released SwinV2-B normalizes its targets by the pixels around each, drops paths, "
    "and decays the scales of its attention.",
    "Computation in bfloat16; the authors' is in float16, with a scaled loss.",
  ),
)

# The paper's ViT is BEiT's.
VIT_OPTIONS: Mapping[str, Any] = {
  "positions": "relative",
  "layer_scale": 0.1,
  "key_bias": False,
}
SWIN_VERSIONS: Mapping[str, int] = {"swin": 1, "swinv2": 2}


def simmim(
  *,
  image_size: int | Sequence[int] = 224,
  channels: int = 3,
  patch_size: int | Sequence[int] = 16,
  encoder_type: str = "vit",
  encoder: Mapping[str, Any] | str = "B",
  mask_patch_size: int | Sequence[int] = 32,
  mask_ratio: float = 0.6,
  dtype: str = "float32",
  mlp_ratio: float = 4.0,
  norm_epsilon: float | None = None,
  drop_path: float = 0.0,
  initialization: str | None = None,
  scan: bool = False,
  remat: str = "none",
) -> Reconstruction:
  """Makes SimMIM from hyperparameters; the defaults are those of its ViT.

  Args:
    image_size: side, or (height, width), in pixels.
    channels: values a pixel.
    patch_size: side, or (height, width), in pixels; the paper's Swin has 4.
    encoder_type: `vit`, `swin` or `swinv2`.
    encoder: of a ViT a size of `maskjax.models.VIT_SIZES`, or `width`, `depth` and
      `heads`, and `positions`, `layer_scale` and `key_bias` where they are not
      BEiT's; of a Swin see `maskjax.models.swin_encoder`.
    mask_patch_size: side of what is masked as one, or (height, width), in pixels.
    mask_ratio: share of these units that is masked, rounded up.
    dtype: type of the computation; parameters are float32.
    mlp_ratio: hidden width of the blocks' networks by their width.
    norm_epsilon: added to the variance in layer normalization; 1e-6 in a ViT and
      1e-5 in a Swin when None.
    drop_path: drop rate of the last block; earlier blocks' rise from 0 to it.
    initialization: how parameters are drawn at first, see
      `maskjax.models.BlockOptions`; `simmim` for a ViT and `swin` for others when None.
    scan: compile one block of a ViT and loop over it, see
      `maskjax.models.BlockOptions`.
    remat: `none`, `dots` or `full`: which activations are computed again in the
      backward pass, see `maskjax.models.BlockOptions`.

  Raises:
    UserError: sizes, units or strides that do not divide, no such encoder, or a shape
      or a ratio out of range; names it.

  Example:
    >>> simmim(encoder="Ti").masking.num_masked
    120
  """
  patches = patches_of(image_size, patch_size, channels=channels)
  unit = per_side(mask_patch_size)
  network, stride = _encoder(
    encoder_type,
    encoder,
    patches,
    scan=scan,
    dtype=dtype,
    mlp_ratio=mlp_ratio,
    drop_path=drop_path,
    initialization=initialization or ("simmim" if encoder_type == "vit" else "swin"),
    remat=remat,
    **({} if norm_epsilon is None else {"norm_epsilon": norm_epsilon}),
  )
  patch, sides = patches.size, patches.shape[:-1]
  if any(
    u < 1 or u % p or side % u for u, p, side in zip(unit, patch, sides, strict=True)
  ):
    raise UserError(
      f"mask_patch_size={_by(unit)}: expected a multiple of patch_size={_by(patch)} "
      f"that divides image_size={_by(sides)}"
    )
  if any(n % stride for n in patches.grid):
    raise UserError(
      f"image_size={_by(sides)}: expected a multiple of "
      f"{_by([stride * p for p in patch])}, the pixels that each last token predicts"
    )
  tokens = [u // p for u, p in zip(unit, patch, strict=True)]  # of a unit
  target = Pixels(patch_size=patch, channels=channels)
  return Reconstruction(
    model=MaskedEncoder(encoder=network, size=target.size, stride=stride),
    patches=patches,
    masking=Masking(
      sampler=resolve.bind(samplers, {"name": "aligned", "unit": tuple(tokens)}),
      grid=patches.grid,
      num_masked=num_masked_in_units(patches.grid, tokens, mask_ratio),
    ),
    target=target,
    error=absolute_error,
  )


def _encoder(
  encoder_type: str,
  encoder: Mapping[str, Any] | str,
  patches: Patches,
  *,
  scan: bool,
  **shared: Any,
) -> tuple[VisionEncoder | SwinEncoder, int]:
  """The encoder of that type, and the side of its last tokens in patches."""
  if encoder_type == "vit":
    shape = {"size": encoder} if isinstance(encoder, str) else dict(encoder)
    own = {key: shape.pop(key, value) for key, value in VIT_OPTIONS.items()}
    vit = vit_encoder(
      grid=patches.grid,
      encoder=shape,
      masked_patches="token",
      scan=scan,
      **own,
      **shared,
    )
    return vit, 1
  if encoder_type not in SWIN_VERSIONS:
    hint = did_you_mean(str(encoder_type), ("vit", *SWIN_VERSIONS))
    raise UserError(f"encoder_type={encoder_type!r}: {hint}")
  if scan:
    raise UserError(
      f"scan=True: expected False with encoder_type={encoder_type!r}, whose blocks "
      "differ"
    )
  swin = swin_encoder(
    image_size=patches.shape[:-1],
    patch_size=patches.size,
    encoder=encoder,
    version=SWIN_VERSIONS[encoder_type],
    **shared,
  )
  return swin, swin.stride


def _by(sides: Sequence[int]) -> str:
  return "x".join(map(str, sides))
