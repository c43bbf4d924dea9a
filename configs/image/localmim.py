"""LocalMIM (arXiv:2303.05251).

small: 60,000 real images of 28x28 pixels, see maskjax/recipes.py.
  maskjax train --config configs/image/localmim.py:small --workdir runs/localmim

  With a black margin of 2 pixels: 8x8 patches can be joined to larger regions, 7x7
  cannot. Four blocks have three decoders; regions of 1 pixel have no histogram.

imagenet: the paper's recipe, ViT-B/16, through TFDS.
  maskjax train --config configs/image/localmim.py:imagenet --workdir runs/localmim
"""

from maskjax import config as configs
from maskjax import recipes


def get_config(setting=None):
  return configs.setting(setting, {"small": small, "imagenet": imagenet})


def small():
  config = recipes.fashion_mnist()
  config.num_steps = 1400
  config.objective = dict(
    name="localmim",
    image_size=32,
    channels=1,
    patch_size=4,
    encoder=dict(width=64, depth=4, heads=2),
    layers=(1, 3, 4),
    scales=(2, 1, 0.5),
    decoder=dict(width=64, depth=1, heads=2),
    mask_ratio=0.75,
    dtype="float32",
  )
  config.optimizer = dict(
    name="adamw",
    learning_rate=3e-3,
    warmup_steps=90,
    weight_decay=0.05,
  )
  margin = dict(name="random_crop", size=32, padding=2)  # crops all there is
  config.data.train_transforms = (margin, *config.data.train_transforms)
  config.data.test_transforms = (margin, *config.data.test_transforms)
  return config


def imagenet():
  config = recipes.imagenet(scale=(0.2, 1.0))
  config.batch_size = 2048
  epoch = recipes.epoch(config)
  config.num_steps = 1600 * epoch
  config.objective = dict(
    name="localmim",
    image_size=224,
    channels=3,
    patch_size=16,
    encoder=dict(size="B"),
    layers=(2, 4, 10, 12),
    scales=(4, 2, 1, 0.5),
    decoder=dict(width=256, depth=1, heads=8),
    target="hog",
    orientations=9,
    mask_ratio=0.75,
    dtype="bfloat16",
    scan=False,
    remat="none",  # or "dots", "full"
  )
  config.optimizer = dict(
    name="adamw",
    learning_rate=2e-4 * config.get_ref("batch_size") / 256,
    warmup_steps=40 * epoch,
    b1=0.9,
    b2=0.95,
    weight_decay=0.05,
  )
  config.checkpoint.every = 5 * epoch
  config.eval.every = 20 * epoch
  return config
