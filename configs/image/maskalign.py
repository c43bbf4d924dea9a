"""MaskAlign (arXiv:2211.08887).

small: 60,000 real images of 28x28 pixels, see maskjax/recipes.py; MAE teaches:
  maskjax train --config configs/image/mae.py:small --workdir runs/mae_small
  maskjax train --config configs/image/maskalign.py --workdir runs/maskalign

imagenet: the paper's ViT-B/16 for 200 epochs, CLIP ViT-B/16 teaches, see
  configs/image/teacher.py. Images are normalized as CLIP was given them.
  maskjax train --config configs/image/maskalign.py:imagenet --workdir runs/maskalign
"""

from maskjax import config as configs
from maskjax import recipes


def get_config(setting=None):
  return configs.setting(setting, {"small": small, "imagenet": imagenet})


def small():
  config = recipes.fashion_mnist()
  config.num_steps = 2100
  config.objective = dict(
    name="maskalign",
    teacher=dict(
      name="frozen",
      objective=configs.load("configs/image/mae.py:small").objective,
      workdir="runs/mae_small",
    ),
    image_size=28,
    channels=1,
    patch_size=4,
    encoder=dict(width=64, depth=4, heads=2),
    mask="attentive",
    mask_ratio=0.7,
    levels=2,
    drop_path=0.0,
    dtype="float32",
  )
  config.optimizer = dict(
    name="adamw",
    learning_rate=3e-3,
    warmup_steps=140,
    weight_decay=0.05,
  )
  config.eval.probes = ("knn", "linear", "plain")
  return config


def imagenet():
  config = recipes.imagenet(colors=recipes.CLIP_COLORS)
  config.batch_size = 1024
  epoch = recipes.epoch(config)
  config.num_steps = 200 * epoch
  config.objective = dict(
    name="maskalign",
    teacher=dict(
      name="frozen",
      objective=configs.load("configs/image/teacher.py:clip_b16").objective,
      workdir="runs/clip_b16",
    ),
    image_size=224,
    channels=3,
    patch_size=16,
    encoder=dict(size="B"),
    mask="attentive",
    mask_ratio=0.7,
    levels=5,
    drop_path=0.1,
    dtype="bfloat16",
    scan=False,
    remat="none",  # or "dots", "full"
  )
  config.optimizer = dict(
    name="adamw",
    learning_rate=1.5e-4 * config.get_ref("batch_size") / 256,
    final_learning_rate=1e-5,
    warmup_steps=20 * epoch,
    b1=0.9,
    b2=0.95,
    weight_decay=0.05,
  )
  config.checkpoint.every = 5 * epoch
  config.eval.every = 20 * epoch
  return config
