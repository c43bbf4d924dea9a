"""dBOT (arXiv:2209.03917).

small: 60,000 real images of 28x28 pixels, see maskjax/recipes.py; two stages,
  the first teacher is random.
  maskjax train --config configs/image/dbot.py --workdir runs/dbot

imagenet: the paper's ViT-B/16, two stages of 800 epochs.
  maskjax train --config configs/image/dbot.py:imagenet --workdir runs/dbot
"""

from maskjax import config as configs
from maskjax import recipes


def get_config(setting=None):
  return configs.setting(setting, {"small": small, "imagenet": imagenet})


def small():
  config = recipes.fashion_mnist()
  config.num_steps = 1900
  config.objective = dict(
    name="dbot",
    teacher=dict(name="bootstrap", stages=2),
    image_size=28,
    channels=1,
    patch_size=4,
    encoder=dict(width=64, depth=4, heads=2),
    decoder=dict(width=64, depth=1, heads=2),
    mask_ratio=0.75,
    drop_path=0.0,
    dtype="float32",
  )
  config.optimizer = dict(
    name="adamw",
    learning_rate=3e-3,
    warmup_steps=120,
    cycles=2,  # as many as stages
    weight_decay=0.05,
  )
  config.eval.probes = ("knn", "linear", "plain")
  return config


def imagenet():
  config = recipes.imagenet()
  config.batch_size = 4096
  epoch = recipes.epoch(config)
  config.num_steps = 1600 * epoch
  config.objective = dict(
    name="dbot",
    teacher=dict(name="bootstrap", stages=2),
    image_size=224,
    channels=3,
    patch_size=16,
    encoder=dict(size="B"),
    decoder=dict(width=512, depth=8, heads=16),
    mask_ratio=0.75,
    drop_path=0.2,
    dtype="bfloat16",
    scan=False,
    remat="none",  # or "dots", "full"
  )
  config.optimizer = dict(
    name="adamw",
    learning_rate=1.5e-4 * config.get_ref("batch_size") / 256,
    warmup_steps=40 * epoch,
    cycles=2,  # as many as stages
    b1=0.9,
    b2=0.95,
    weight_decay=0.05,
    clip_norm=3.0,
  )
  config.checkpoint.every = 5 * epoch
  config.eval.every = 20 * epoch
  return config
