"""What the configs of image systems share: data, evaluation, and usual numbers.

A config begins with one of these and adds what is particular to its system.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from maskjax import config as configs

# Means and stds of red, green and blue: of ImageNet, of networks that see pixels from
# -1 to 1, and of CLIP's inputs.
COLORS = dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
SIGNED_COLORS = dict(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))  # from -1 to 1
CLIP_COLORS = dict(
  mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711)
)

FASHION_ROOT = "/usr/share/datasets/fashion-mnist"  # Debian: dataset-fashion-mnist


def fashion_mnist() -> ConfigDict:
  """60,000 real images of 28x28 pixels in 10 classes, and 10,000 held out.

  Read from the files in `FASHION_ROOT`; elsewhere, set `data.train.root` and
  `data.test.root`, or take TFDS: dict(name="tfds", dataset="fashion_mnist", split=...).
  """
  config = configs.defaults()
  config.batch_size = 128
  config.data.train = dict(name="idx", root=FASHION_ROOT, split="train")
  config.data.test = dict(name="idx", root=FASHION_ROOT, split="test")
  transforms = ("to_float", dict(name="normalize", mean=0.286, std=0.353))
  config.data.train_transforms = config.data.test_transforms = transforms
  config.data.num_threads = 1
  config.log_every = 250
  config.checkpoint.every = 1000
  config.eval.batch_size = 512
  return config


def imagenet(
  *,
  scale: Sequence[float] = (0.2, 1.0),
  size: int = 224,
  colors: Mapping[str, Sequence[float]] = COLORS,
  method: str = "bicubic",
) -> ConfigDict:
  """ImageNet-1k through TFDS: square crops, mirrored half of the time.

  Args:
    scale: least and largest share of an image that a crop takes.
    size: side of the crops in pixels; whole images are shrunk to 8/7 of it.
    colors: `mean` and `std` of each channel, to normalize by.
    method: how crops are resized, see `maskjax.data.transforms.random_resized_crop`.
  """
  config = configs.defaults()
  config.data.train = dict(name="tfds", dataset="imagenet2012", split="train")
  config.data.test = dict(name="tfds", dataset="imagenet2012", split="validation")
  crop = dict(name="random_resized_crop", size=size, scale=tuple(scale))
  config.data.train_transforms = (
    crop if method == "bicubic" else {**crop, "method": method},
    "random_flip",
    "to_float",
    dict(name="normalize", **colors),
  )
  config.data.test_transforms = (
    dict(name="resize", size=size * 8 // 7),
    dict(name="center_crop", size=size),
    "to_float",
    dict(name="normalize", **colors),
  )
  config.data.num_threads = 32
  config.data.prefetch = 8
  config.log_every = 100
  config.eval.batch_size = 4096
  return config


def epoch(
  config: ConfigDict, examples: int = 1281167, *, filled_up: bool = False
) -> Any:
  """Steps of an epoch, a reference that follows `batch_size`; ImageNet's by default.

  Args:
    config: whose `batch_size` it follows.
    examples: of an epoch.
    filled_up: count the last batch as well, which has to be filled up; some authors
      drop it and others do not.
  """
  batch_size = config.get_ref("batch_size")
  return -(-examples // batch_size) if filled_up else examples // batch_size


def small_image(
  *,
  num_steps: int,
  warmup_steps: int,
  image_size: int | tuple[int, int] = 28,
  patch_size: int = 4,
  learning_rate: float = 3e-3,
  weight_decay: float = 0.05,
  probes: Sequence[str] = ("knn", "linear", "plain"),
  **optimizer: Any,
) -> ConfigDict:
  """An image system on Fashion-MNIST that trains in minutes on two cores.

  The encoder is a ViT of four blocks of width 64 with two heads, in float32. So narrow
  a network learns too slowly from weights as small as papers draw them for wide ones.

  Args:
    num_steps: chosen so that all systems take about as long.
    warmup_steps: of the learning rate, which falls along a cosine after them.
    image_size: height and width of the images in pixels.
    patch_size: height and width of the patches in pixels.
    learning_rate: of AdamW.
    weight_decay: of AdamW.
    probes: how the features are evaluated.
    **optimizer: further keywords of AdamW.

  Returns:
    A config whose objective lacks its name and what is particular to it.

  Example:
    >>> config = small_image(num_steps=1500, warmup_steps=100)
    >>> config.objective.update(name="mp3", mask_ratio=0.75)
    >>> config.objective.encoder.width
    64
  """
  config = fashion_mnist()
  config.num_steps = num_steps
  config.objective = dict(
    image_size=image_size,
    channels=1,
    patch_size=patch_size,
    encoder=dict(width=64, depth=4, heads=2),
    initialization="xavier",
    dtype="float32",
  )
  config.optimizer = dict(
    name="adamw",
    learning_rate=learning_rate,
    warmup_steps=warmup_steps,
    weight_decay=weight_decay,
    **optimizer,
  )
  config.eval.probes = tuple(probes)
  return config


def imagenet_vit(
  *,
  epochs: int,
  warmup_epochs: int,
  batch_size: int,
  learning_rate: float,
  base_batch: int | None = None,
  patch_size: int | None = 16,
  scale: Sequence[float] = (0.2, 1.0),
  colors: Mapping[str, Sequence[float]] = COLORS,
  method: str = "bicubic",
  filled_up: bool = False,
  **optimizer: Any,
) -> ConfigDict:
  """A paper's pretraining of a ViT on ImageNet-1k, 224x224 pixels, in bfloat16.

  Everything that is counted in epochs follows `batch_size` when that is changed.

  Args:
    epochs: of training.
    warmup_epochs: in which the learning rate rises; it falls along a cosine after them.
    batch_size: images of a batch.
    learning_rate: of AdamW, the highest; for a batch of `base_batch` images, and
      proportional to `batch_size`.
    base_batch: None for a learning rate that does not depend on `batch_size`.
    patch_size: height and width of the patches in pixels.
    scale: least and largest share of an image that a training crop takes.
    colors: see `imagenet`.
    method: see `imagenet`.
    filled_up: see `epoch`.
    **optimizer: further keywords of AdamW.

  Returns:
    A config whose objective lacks its name, its encoder and what else is particular.

  Example:
    >>> config = imagenet_vit(
    ...   epochs=800, warmup_epochs=40, batch_size=4096, learning_rate=1.5e-4,
    ...   base_batch=256,
    ... )
    >>> config.num_steps, config.optimizer.learning_rate
    (249600, 0.0024)
  """
  config = imagenet(scale=scale, colors=colors, method=method)
  config.batch_size = batch_size
  steps = epoch(config, filled_up=filled_up)
  config.num_steps = epochs * steps
  config.objective = dict(
    image_size=224,
    channels=3,
    patch_size=patch_size,
    dtype="bfloat16",
    scan=False,
    remat="none",  # or "dots", "full"
  )
  rate: Any = learning_rate
  if base_batch is not None:
    rate = learning_rate * config.get_ref("batch_size") / base_batch
  config.optimizer = dict(
    name="adamw",
    learning_rate=rate,
    warmup_steps=warmup_epochs * steps,
    **optimizer,
  )
  config.checkpoint.every = 5 * steps
  config.eval.every = 20 * steps
  return config


def frozen(
  config: str,
  *,
  workdir: str,
  batch_colors: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
  """A teacher or tokenizer that was trained before, and trains no more.

  Args:
    config: `FILE:NAME` of the setting that it was trained by.
    workdir: of its run, or "random", see `maskjax.objectives.teachers.frozen`.
    batch_colors: `mean` and `std` that the student's images are normalized by; to be
      given where the setting normalizes by others, which the teacher then sees.

  Returns:
    What an objective takes as `teacher` or `tokenizer`.
  """
  loaded = configs.load(config)
  found = dict(name="frozen", objective=loaded.objective, workdir=workdir)
  if batch_colors is None:
    return found
  (colors,) = (
    dict(mean=transform["mean"], std=transform["std"])
    for transform in loaded.data.test_transforms
    if not isinstance(transform, str) and transform["name"] == "normalize"
  )
  return {**found, "colors": colors, "batch_colors": dict(batch_colors)}
