"""I-JEPA (arXiv:2301.08243).

small: Fashion-MNIST, see maskjax/recipes.py; docs/results/image.md has its numbers.
  maskjax train --config configs/image/ijepa.py:small --workdir runs/ijepa_small

imagenet: the paper's appendix A, ViT-H/14 for 300 epochs, through TFDS.
  maskjax train --config configs/image/ijepa.py:imagenet --workdir runs/ijepa
"""

from maskjax import config as configs
from maskjax import recipes


def get_config(setting=None):
  return configs.setting(setting, {"small": small, "imagenet": imagenet})


def small():
  config = recipes.fashion_mnist()
  config.num_steps = 3000
  config.objective = dict(
    name="ijepa",
    image_size=28,
    channels=1,
    patch_size=4,
    encoder=dict(width=64, depth=4, heads=2),
    predictor=dict(width=64, depth=1, heads=2),
    teacher=dict(
      name="ema",
      decay=0.99,
      last=1.0,
      shape="linear",
    ),
    num_targets=2,
    context_ratio=0.3,
    dtype="float32",
  )
  config.optimizer = dict(
    name="adamw",
    learning_rate=3e-3,
    warmup_steps=200,
    b2=0.95,
    weight_decay=0.05,
  )
  config.eval.probes = ("knn", "linear", "plain")
  return config


def imagenet():
  config = recipes.imagenet(scale=(0.3, 1.0))
  # The paper mirrors no images.
  transforms = config.data.train_transforms
  config.data.train_transforms = tuple(t for t in transforms if t != "random_flip")
  config.batch_size = 2048
  epoch = recipes.epoch(config)
  config.num_steps = 300 * epoch
  config.objective = dict(
    name="ijepa",
    image_size=224,
    channels=3,
    patch_size=14,
    encoder=dict(size="H"),
    predictor=dict(width=384, depth=12, heads=16),
    teacher=dict(
      name="ema",
      decay=0.996,
      last=1.0,
      shape="linear",
    ),
    num_targets=4,
    target_scale=(0.15, 0.2),
    target_aspect=(0.75, 1.5),
    context_scale=(0.85, 1.0),
    context_ratio=0.25,
    dtype="bfloat16",
    scan=False,
    remat="none",  # or "dots", "full"
  )
  config.optimizer = dict(
    name="adamw",
    initial_learning_rate=1e-4,
    learning_rate=1e-3,
    final_learning_rate=1e-6,
    warmup_steps=15 * epoch,
    b2=0.999,
    weight_decay=0.04,
    final_weight_decay=0.4,
  )
  config.checkpoint.every = 5 * epoch
  config.eval.every = 20 * epoch
  return config
