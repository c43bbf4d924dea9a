"""Drawing images side by side, and writing PNG files."""

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
  """Draws stacks of images as columns, with each stack's name above its column.

  Args:
    images: by name, float [K, H, W, C], normalized by `mean` and `std`. Of images
      whose C is not 3 the first channel is drawn. Smaller images are enlarged to the
      size of the largest.
    mean: of each channel, or one for all, that was subtracted from pixels in [0, 1].
    std: of each channel, or one for all, by which they were then divided.

  Returns:
    The picture, uint8 [rows, columns, 3].
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
  """Writes a picture to a PNG file.

  Args:
    path: of the file, which is replaced if it exists.
    picture: uint8 [H, W, 3].
  """
  from PIL import Image

  Image.fromarray(picture).save(str(path), format="PNG")


def _to_bytes(x: np.ndarray) -> np.ndarray:
  """Converts float [K, H, W, C] in [0, 1] to uint8 [K, H, W, 3]."""
  x = x if x.shape[-1] == 3 else np.repeat(x[..., :1], 3, axis=-1)
  return np.round(np.clip(x, 0, 1) * 255).astype(np.uint8)
