"""Latent MIM (arXiv:2407.15837).

small: Fashion-MNIST, see maskjax/recipes.py; docs/results/image.md has its numbers.
  maskjax train --config configs/image/latent_mim.py:small --workdir runs/lmim_small

imagenet: the paper's recipe, ViT-B/16 for 800 epochs, through TFDS.
  maskjax train --config configs/image/latent_mim.py:imagenet --workdir runs/latent_mim
"""

from maskjax import config as configs
from maskjax import recipes


def get_config(setting=None):
  return configs.setting(setting, {"small": small, "imagenet": imagenet})


def small():
  config = recipes.fashion_mnist()
  # 7x7 patches of 4x4 pixels, a pixel apart in training.
  config.data.train_transforms = (
    dict(name="resize", size=35),
    dict(name="spaced_patches", patch_size=4, gap=1),
    *config.data.train_transforms,
  )
  config.num_steps = 2200
  config.objective = dict(
    name="latent_mim",
    image_size=28,
    channels=1,
    patch_size=4,
    encoder=dict(width=64, depth=4, heads=2),
    projector=dict(hidden=256, depth=3),
    decoder=dict(width=64, depth=1, heads=2),
    teacher=dict(name="ema", decay=0.99, last=1.0),
    mask_ratio=0.75,
    temperature=0.2,
    dtype="float32",
  )
  config.optimizer = dict(
    name="adamw",
    learning_rate=3e-3,
    warmup_steps=150,
    weight_decay=0.05,
  )
  config.eval.probes = ("knn", "linear", "plain")
  return config


def imagenet():
  # 14x14 patches of 16x16 pixels, 4 apart in training.
  config = recipes.imagenet()
  config.data.train_transforms = (
    dict(name="random_resized_crop", size=280, scale=(0.2, 1.0)),
    dict(name="spaced_patches", patch_size=16, gap=4),
    *config.data.train_transforms[1:],
  )
  config.batch_size = 4096
  epoch = recipes.epoch(config)
  config.num_steps = 800 * epoch
  config.objective = dict(
    name="latent_mim",
    image_size=224,
    channels=3,
    patch_size=16,
    encoder=dict(size="B"),
    projector=dict(hidden=4096, depth=3),
    decoder=dict(width=512, depth=3, heads=16),
    teacher=dict(name="ema", decay=0.99, last=1.0),
    mask_ratio=0.9,
    temperature=0.2,
    similarity=(0.75, 0.25),
    similarity_weight=0.1,
    dtype="bfloat16",
    scan=False,
    remat="none",  # or "dots", "full"
  )
  rate = 1.5e-4 * config.get_ref("batch_size") / 256
  config.optimizer = dict(
    name="adamw",
    learning_rate=rate,
    final_learning_rate=rate / 4,
    warmup_steps=40 * epoch,
    b1=0.9,
    b2=0.95,
    weight_decay=0.05,
  )
  config.checkpoint.every = 5 * epoch
  config.eval.every = 20 * epoch
  return config
