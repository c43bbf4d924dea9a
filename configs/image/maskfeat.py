"""MaskFeat (arXiv:2112.09133).

small: 60,000 real images of 28x28 pixels, see maskjax/recipes.py.
  maskjax train --config configs/image/maskfeat.py:small --workdir runs/maskfeat

imagenet: the paper's recipe for images, ViT-B/16, through TFDS.
  maskjax train --config configs/image/maskfeat.py:imagenet --workdir runs/maskfeat
"""

from maskjax import config as configs
from maskjax import recipes


def get_config(setting=None):
  return configs.setting(setting, {"small": small, "imagenet": imagenet})


def small():
  config = recipes.fashion_mnist()
  config.num_steps = 1200
  config.objective = dict(
    name="maskfeat",
    image_size=28,
    channels=1,
    patch_size=4,
    cell_size=2,  # 2x2 in a patch, as in the paper
    encoder=dict(width=64, depth=4, heads=2),
    mask=dict(name="blockwise", min_patches=4),  # of 49 as 16 of 196
    mask_ratio=0.4,
    dtype="float32",
  )
  config.optimizer = dict(
    name="adamw",
    learning_rate=2e-3,
    warmup_steps=80,
    weight_decay=0.05,
  )
  return config


def imagenet():
  config = recipes.imagenet(scale=(0.5, 1.0))
  config.batch_size = 2048
  epoch = recipes.epoch(config)
  config.num_steps = 1600 * epoch
  config.objective = dict(
    name="maskfeat",
    image_size=224,
    channels=3,
    patch_size=16,
    cell_size=8,
    orientations=9,
    encoder=dict(size="B"),
    mask="blockwise",
    mask_ratio=0.4,
    dtype="bfloat16",
    scan=False,
    remat="none",  # or "dots", "full"
  )
  config.optimizer = dict(
    name="adamw",
    learning_rate=2e-4 * config.get_ref("batch_size") / 256,
    final_learning_rate=1e-6,
    warmup_steps=30 * epoch,
    b1=0.9,
    b2=0.999,
    weight_decay=0.05,
    clip_norm=0.02,
  )
  config.checkpoint.every = 5 * epoch
  config.eval.every = 20 * epoch
  return config
