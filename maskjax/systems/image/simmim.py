"""SimMIM: a simple framework for masked image modeling.

Masks units of 32x32 pixels, larger than a patch, keeps their places with a learned
token inside of the encoder, and predicts the raw pixels of what is masked by one
linear layer, judged by their absolute error. So a hierarchical encoder can take the
ViT's place (https://arxiv.org/abs/2111.09886). Config: `configs/image/simmim.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from maskjax import masking, resolve
from maskjax.errors import UserError
from maskjax.losses import absolute_error
from maskjax.masking import samplers
from maskjax.models import MaskedEncoder, swin_encoder, vit_encoder
from maskjax.objectives.reconstruction import Reconstruction
from maskjax.resolve import did_you_mean
from maskjax.systems.system import System
from maskjax.targets import Pixels
from maskjax.tokens.patches import per_side

SYSTEM = System(
  name="simmim",
  family="image",
  paper="arXiv:2111.09886",
  config="configs/image/simmim.py",
  agrees_with="transformers ViT, Swin and Swinv2ForMaskedImageModeling",
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
    scan: compile one block of a ViT and loop over it, see
      `maskjax.models.BlockOptions`.
    remat: `none`, `dots` or `full`: which activations are computed again in the
      backward pass, see `maskjax.models.BlockOptions`.

  Raises:
    UserError: hyperparameters that do not fit each other; names them.

  Example:
    >>> simmim(encoder="Ti").num_masked
    120
  """
  patch, unit = per_side(patch_size), per_side(mask_patch_size)
  network = _encoder(
    encoder_type,
    encoder,
    scan=scan,
    image_size=image_size,
    patch_size=patch,
    dtype=dtype,
    mlp_ratio=mlp_ratio,
    drop_path=drop_path,
    remat=remat,
    **({} if norm_epsilon is None else {"norm_epsilon": norm_epsilon}),
  )
  grid, stride = network.grid, getattr(network, "stride", 1)
  sides = tuple(n * p for n, p in zip(grid, patch, strict=True))
  if any(
    u < 1 or u % p or side % u for u, p, side in zip(unit, patch, sides, strict=True)
  ):
    raise UserError(
      f"mask_patch_size={_by(unit)}: expected a multiple of patch_size={_by(patch)} "
      f"that divides image_size={_by(sides)}"
    )
  if any(n % stride for n in grid):
    raise UserError(
      f"image_size={_by(sides)}: expected a multiple of "
      f"{_by([stride * p for p in patch])}, what each last token predicts"
    )
  unit = (unit[0] // patch[0], unit[1] // patch[1])
  target = Pixels(patch_size=patch, channels=channels)
  return Reconstruction(
    model=MaskedEncoder(encoder=network, size=target.size, stride=stride),
    sampler=resolve.bind(samplers, {"name": "aligned", "unit": unit}),
    num_masked=masking.num_masked_in_units(grid, unit, mask_ratio),
    target=target,
    error=absolute_error,
    patch_size=patch,
    channels=channels,
  )


def _encoder(
  encoder_type: str, encoder: Mapping[str, Any] | str, *, scan: bool, **shared: Any
) -> Any:
  """The encoder of that type, with mask tokens."""
  if encoder_type == "vit":
    shape = {"size": encoder} if isinstance(encoder, str) else dict(encoder)
    own = {key: shape.pop(key, value) for key, value in VIT_OPTIONS.items()}
    return vit_encoder(
      encoder=shape, masked_patches="token", scan=scan, **own, **shared
    )
  if encoder_type not in SWIN_VERSIONS:
    hint = did_you_mean(str(encoder_type), ("vit", *SWIN_VERSIONS))
    raise UserError(f"encoder_type={encoder_type!r}: {hint}")
  if scan:
    raise UserError(
      f"scan=True: expected False with encoder_type={encoder_type!r}, whose blocks "
      "differ"
    )
  return swin_encoder(encoder=encoder, version=SWIN_VERSIONS[encoder_type], **shared)


def _by(sides: Sequence[int]) -> str:
  return "x".join(map(str, sides))
