"""MP3 (arXiv:2207.07611).

small: Fashion-MNIST, see maskjax/recipes.py.
  maskjax train --config configs/image/mp3.py:small --workdir runs/mp3_small

imagenet: the paper's ViT-B/16 in 100 epochs, through TFDS. Optimizer as in MAE.
  maskjax train --config configs/image/mp3.py:imagenet --workdir runs/mp3
"""

from maskjax import config as configs
from maskjax import recipes


def get_config(setting=None):
  return configs.setting(setting, {"small": small, "imagenet": imagenet})


def small():
  config = recipes.fashion_mnist()
  config.num_steps = 1500
  config.objective = dict(
    name="mp3",
    image_size=(28, 28),
    channels=1,
    patch_size=4,
    encoder=dict(width=64, depth=4, heads=2),
    mask_ratio=0.75,
    dtype="float32",
  )
  config.optimizer = dict(
    name="adamw",
    learning_rate=3e-3,
    warmup_steps=100,
    weight_decay=0.05,
  )
  config.eval.probes = ("knn", "linear", "plain")
  return config


def imagenet():
  config = recipes.imagenet()
  config.batch_size = 4096
  epoch = recipes.epoch(config)
  config.num_steps = 100 * epoch
  config.objective = dict(
    name="mp3",
    image_size=224,
    channels=3,
    patch_size=16,
    encoder=dict(size="B"),
    mask_ratio=0.75,
    dtype="bfloat16",
    scan=False,
    remat="none",  # or "dots", "full"
  )
  config.optimizer = dict(
    name="adamw",
    learning_rate=1.5e-4 * config.get_ref("batch_size") / 256,
    warmup_steps=20 * epoch,
    b1=0.9,
    b2=0.95,
    weight_decay=0.05,
  )
  config.checkpoint.every = 5 * epoch
  config.eval.every = 20 * epoch
  return config
