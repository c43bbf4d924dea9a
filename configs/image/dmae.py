"""DMAE (arXiv:2208.12256).

small: 60,000 real images of 28x28 pixels, see maskjax/recipes.py; MAE teaches:
  maskjax train --config configs/image/mae.py:small --workdir runs/mae_small
  maskjax train --config configs/image/dmae.py --workdir runs/dmae

imagenet: the paper's ViT-B/16 for 100 epochs, MAE's ViT-L/16 teaches: one that was
  trained, or imported by `maskjax convert`, as configs/image/mae.py:imagenet.
  maskjax train --config configs/image/dmae.py:imagenet --workdir runs/dmae
"""

from maskjax import config as configs
from maskjax import recipes


def get_config(setting=None):
  return configs.setting(setting, {"small": small, "imagenet": imagenet})


def small():
  config = recipes.fashion_mnist()
  config.num_steps = 2600
  config.objective = dict(
    name="dmae",
    teacher=dict(
      name="frozen",
      objective=configs.load("configs/image/mae.py:small").objective,
      workdir="runs/mae_small",
    ),
    image_size=28,
    channels=1,
    patch_size=4,
    encoder=dict(width=64, depth=4, heads=2),
    decoder=dict(width=64, depth=1, heads=2),
    mask_ratio=0.75,
    norm_pix_loss=False,
    dtype="float32",
  )
  config.optimizer = dict(
    name="adamw",
    learning_rate=3e-3,
    warmup_steps=170,
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
    name="dmae",
    teacher=dict(
      name="frozen",
      objective=configs.load("configs/image/mae.py:imagenet").objective,
      workdir="runs/mae",
    ),
    image_size=224,
    channels=3,
    patch_size=16,
    encoder=dict(size="B"),
    decoder=dict(width=512, depth=8, heads=16),
    mask_ratio=0.75,
    norm_pix_loss=False,
    layer=9,
    teacher_layer=18,
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
