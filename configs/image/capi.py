"""CAPI (arXiv:2502.08769).

small: Fashion-MNIST, see maskjax/recipes.py; docs/results/image.md has its numbers.
  maskjax train --config configs/image/capi.py:small --workdir runs/capi_small

imagenet: the paper's recipe, ViT-L/14, on ImageNet-1k, through TFDS.
  maskjax train --config configs/image/capi.py:imagenet --workdir runs/capi
"""

from maskjax import config as configs
from maskjax import recipes


def get_config(setting=None):
  return configs.setting(setting, {"small": small, "imagenet": imagenet})


def small():
  config = recipes.fashion_mnist()
  config.num_steps = 1900
  config.objective = dict(
    name="capi",
    image_size=28,
    channels=1,
    patch_size=4,
    encoder=dict(width=64, depth=4, heads=2),
    predictor=dict(depth=2),
    registers=4,
    teacher=dict(name="ema", decay=0.99, last=1.0),
    mask_ratio=0.65,
    predicted_ratio=0.5,
    num_clusters=128,
    drop_path=0.0,
    dtype="float32",
  )
  config.optimizer = dict(
    name="adamw",
    learning_rate=3e-3,
    warmup_steps=150,
    weight_decay=0.05,
    factors={"clusters/": 0.5, "encoder/embed/": 0.2},
  )
  config.eval.probes = ("knn", "linear", "plain")
  return config


def imagenet():
  config = recipes.imagenet(scale=(0.6, 1.0))
  config.batch_size = 16384
  config.num_steps = 500_000
  warmup_steps = 50_000
  # Of the cosines that follow the warm-up, the paper leaves out the last fifth.
  whole = warmup_steps + (config.get_ref("num_steps") - warmup_steps) * 5 // 4
  config.objective = dict(
    name="capi",
    image_size=224,
    channels=3,
    patch_size=14,
    encoder=dict(size="L"),
    predictor=dict(width=1024, depth=12, heads=16),
    registers=16,
    teacher=dict(
      name="ema",
      decay=0.999,
      last=1.0,
      num_steps=whole,
      warmup_steps=warmup_steps,
    ),
    mask_ratio=0.65,
    predicted_ratio=0.05,
    num_clusters=16384,
    drop_path=0.2,
    dtype="bfloat16",
    scan=False,
    remat="none",  # or "dots", "full"
  )
  config.optimizer = dict(
    name="adamw",
    num_steps=whole,
    learning_rate=1e-3,
    warmup_steps=warmup_steps,
    b1=0.9,
    b2=0.95,
    weight_decay=0.1,
    factors={"clusters/": 0.5, "encoder/embed/": 0.2},
  )
  config.checkpoint.every = 5000
  config.eval.every = 20_000
  return config
