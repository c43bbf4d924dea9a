"""HPM (arXiv:2304.05919).

small: Fashion-MNIST, see maskjax/recipes.py.
  maskjax train --config configs/image/hpm.py:small --workdir runs/hpm_small

imagenet: the paper's ViT-B/16, 800 epochs, through TFDS.
  maskjax train --config configs/image/hpm.py:imagenet --workdir runs/hpm
"""

from maskjax import config as configs
from maskjax import recipes


def get_config(setting=None):
  return configs.setting(setting, {"small": small, "imagenet": imagenet})


def small():
  config = recipes.fashion_mnist()
  config.num_steps = 1500
  config.objective = dict(
    name="hpm",
    image_size=(28, 28),
    channels=1,
    patch_size=4,
    encoder=dict(width=64, depth=4, heads=2),
    decoder=dict(width=64, depth=1, heads=2),
    mask_ratio=0.75,
    hard_ratio=(0.0, 0.5),
    norm_pix_loss=False,
    teacher=dict(name="ema", decay=0.99),
    dtype="float32",
  )
  config.optimizer = dict(
    name="adamw",
    learning_rate=3e-3,
    warmup_steps=100,
    weight_decay=0.05,
  )
  return config


def imagenet():
  config = recipes.imagenet()
  config.batch_size = 4096
  epoch = recipes.epoch(config)
  config.num_steps = 800 * epoch
  config.objective = dict(
    name="hpm",
    image_size=224,
    channels=3,
    patch_size=16,
    encoder=dict(size="B"),
    decoder=dict(width=512, depth=8, heads=16),
    mask_ratio=0.75,
    hard_ratio=(0.0, 0.5),
    norm_pix_loss=False,
    teacher=dict(
      name="ema", decay=0.999, last=0.9999, num_steps=100 * epoch, shape="linear"
    ),
    dtype="bfloat16",
    scan=False,
    remat="none",
  )
  config.optimizer = dict(
    name="adamw",
    learning_rate=1.5e-4 * config.get_ref("batch_size") / 256,
    warmup_steps=40 * epoch,
    b1=0.9,
    b2=0.95,
    weight_decay=0.05,
  )
  config.checkpoint.every = 5 * epoch
  config.eval.every = 20 * epoch
  return config
