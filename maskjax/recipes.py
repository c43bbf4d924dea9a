"""What the configs of a family have in common: data, and how they are looked at.

A config begins with one of these, and adds its objective, optimizer and schedule.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from maskjax import config as configs

# Means and stds of red, green and blue: of ImageNet, and what CLIP was given.
COLORS = dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
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
) -> ConfigDict:
  """ImageNet-1k through TFDS: square crops, mirrored half of the time.

  Args:
    scale: least and largest share of an image that a crop takes.
    size: side of the crops in pixels; whole images are shrunk to 8/7 of it.
    colors: `mean` and `std` of each channel, to normalize by.
  """
  config = configs.defaults()
  config.data.train = dict(name="tfds", dataset="imagenet2012", split="train")
  config.data.test = dict(name="tfds", dataset="imagenet2012", split="validation")
  config.data.train_transforms = (
    dict(name="random_resized_crop", size=size, scale=tuple(scale)),
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


def epoch(config: ConfigDict, examples: int = 1281167) -> object:
  """Steps of an epoch, a reference that follows `batch_size`; ImageNet's by default."""
  return examples // config.get_ref("batch_size")


def python_reference(*, length: int = 128, vocab_size: int = 512) -> ConfigDict:
  """English text inside of Python itself: 376,000 characters, and a tenth held out.

  Args:
    length: tokens of a row.
    vocab_size: byte pairs that are learned from the training text.
  """
  config = configs.defaults()
  config.batch_size = 32

  def rows(split: str) -> dict[str, Any]:
    learned_from = dict(name="python_reference", split="train")
    return dict(
      name="text",
      documents=dict(name="python_reference", split=split),
      tokenizer=dict(documents=learned_from, size=vocab_size),
      length=length,
    )

  config.data.train, config.data.test = rows("train"), rows("test")
  config.data.num_threads = 1
  config.log_every = 100
  config.checkpoint.every = 1000
  config.eval.batch_size = 32
  config.eval.probes = ()
  return config


TEXT_ROOT = "data/english"  # rows that `maskjax pack` wrote


def packed_text() -> ConfigDict:
  """English Wikipedia and books, or what else `maskjax pack` wrote to `TEXT_ROOT`.

  Set `data.train.root` and `data.test.root` to where it lies, a folder or a bucket.
  """
  config = configs.defaults()
  config.data.train = dict(name="packed_rows", root=TEXT_ROOT, split="train")
  config.data.test = dict(name="packed_rows", root=TEXT_ROOT, split="test")
  config.data.num_threads = 16
  config.data.prefetch = 8
  config.log_every = 100
  config.checkpoint.every = 5000
  config.eval.every = 5000
  config.eval.batch_size = 1024
  config.eval.probes = ()
  return config


def small_text(**objective: Any) -> ConfigDict:
  """A text system on `python_reference`, of few minutes on two cores.

  Its positions are rotary: places that have to be learned take longer to learn than all
  of this.

  Args:
    **objective: its name, and where it differs from all others.
  """
  config = python_reference()
  config.num_steps = 1000
  config.objective = dict(
    vocab_size=512,
    length=128,
    encoder=dict(kind="modernbert", width=128, depth=3, heads=4, windows=(0,)),
    dropout=0.0,
    dtype="float32",
  )
  config.objective.update(objective)
  config.optimizer = dict(
    name="adamw",
    learning_rate=2e-3,
    warmup_steps=100,
    weight_decay=0.05,
  )
  return config
