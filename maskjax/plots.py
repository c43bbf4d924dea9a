"""Pictures."""

from collections.abc import Mapping, Sequence

import numpy as np

GAP = 4
SMALLEST_SIDE = 64  # a tile is enlarged until it is at least this high


def side_by_side(
  images: Mapping[str, np.ndarray],
  *,
  mean: Sequence[float] = (0.0,),
  std: Sequence[float] = (1.0,),
) -> np.ndarray:
  """Draws images in columns, one a name, with the names above.

  Args:
    images: by name, float [K, H, W, C], the first channel alone where C is not 3, in
      [0, 1] after denormalization; smaller ones are drawn as large as the largest.
    mean: what the pixels were reduced by, a channel each or one for all.
    std: what they were divided by afterwards.

  Returns:
    uint8 [rows, columns, 3].
  """
  from PIL import Image, ImageDraw

  names = list(images)
  shown = [_to_bytes(x * np.asarray(std) + mean) for x in images.values()]
  count, height, width, _ = max((stack.shape for stack in shown), key=lambda s: s[1])
  scale = max(1, -(-SMALLEST_SIDE // height))
  tile_height, tile_width = height * scale, width * scale
  header = 16
  canvas = Image.new(
    "RGB",
    (
      GAP + (tile_width + GAP) * len(names),
      header + GAP + (tile_height + GAP) * count,
    ),
    "white",
  )
  draw = ImageDraw.Draw(canvas)
  for column, (name, stack) in enumerate(zip(names, shown, strict=True)):
    left = GAP + (tile_width + GAP) * column
    draw.text((left, 2), name, fill="black")
    for row in range(count):
      tile = Image.fromarray(stack[row]).resize(
        (tile_width, tile_height), Image.Resampling.NEAREST
      )
      canvas.paste(tile, (left, header + GAP + (tile_height + GAP) * row))
  return np.asarray(canvas)


def save_png(path: object, picture: np.ndarray) -> None:
  """Writes uint8 [H, W, 3] to a PNG file."""
  from PIL import Image

  Image.fromarray(picture).save(str(path), format="PNG")


def _to_bytes(x: np.ndarray) -> np.ndarray:
  """Float [K, H, W, C] in [0, 1] to uint8 [K, H, W, 3]."""
  x = x if x.shape[-1] == 3 else np.repeat(x[..., :1], 3, axis=-1)
  return np.round(np.clip(x, 0, 1) * 255).astype(np.uint8)
