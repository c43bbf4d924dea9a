"""BEiT v2 (arXiv:2208.06366), after its tokenizer, configs/image/vqkd.py.

small: 60,000 real images of 28x28 pixels, see maskjax/recipes.py.
  maskjax train --config configs/image/mae.py:small --workdir runs/mae_small
  maskjax train --config configs/image/vqkd.py:small --workdir runs/vqkd_small
  maskjax train --config configs/image/beit_v2.py:small --workdir runs/beit_v2_small

imagenet: the paper's appendix, ViT-B/16, 1600 epochs.
  maskjax train --config configs/image/vqkd.py:imagenet --workdir runs/vqkd
  maskjax train --config configs/image/beit_v2.py:imagenet --workdir runs/beit_v2
"""

from maskjax import config as configs
from maskjax import recipes


def get_config(setting=None):
  return configs.setting(setting, {"small": small, "imagenet": imagenet})


def small():
  config = recipes.fashion_mnist()
  config.num_steps = 900
  config.objective = dict(
    name="beit_v2",
    image_size=(28, 28),
    channels=1,
    patch_size=4,
    encoder=dict(width=64, depth=4, heads=2),
    early_layer=3,
    head_depth=1,
    mask=dict(name="blockwise", min_patches=4),
    mask_ratio=0.4,
    layer_scale=0.1,
    drop_path=0.0,
    tokenizer=dict(
      name="frozen",
      objective=configs.load("configs/image/vqkd.py:small").objective,
      workdir="runs/vqkd_small",
    ),
    dtype="float32",
  )
  config.optimizer = dict(
    name="adamw",
    learning_rate=2e-3,
    warmup_steps=60,
    b2=0.98,
    weight_decay=0.05,
    clip_norm=3.0,
  )
  return config


def imagenet():
  config = recipes.imagenet()
  config.batch_size = 2048
  epoch = recipes.epoch(config)
  config.num_steps = 1600 * epoch
  config.objective = dict(
    name="beit_v2",
    image_size=224,
    channels=3,
    patch_size=16,
    encoder=dict(size="B"),
    early_layer=9,
    head_depth=2,
    mask=dict(name="blockwise", min_patches=16),
    mask_ratio=0.382,  # 75 of 196 patches
    layer_scale=0.1,
    drop_path=0.1,  # 0 for 300 epochs
    tokenizer=dict(
      name="frozen",
      objective=configs.load("configs/image/vqkd.py:imagenet").objective,
      workdir="runs/vqkd",
    ),
    dtype="bfloat16",
    scan=False,
    remat="none",  # or "dots", "full"
  )
  config.optimizer = dict(
    name="adamw",
    learning_rate=1.5e-3 * config.get_ref("batch_size") / 2048,
    final_learning_rate=1e-5,
    warmup_steps=10 * epoch,
    b2=0.999,  # 0.98 for 300 epochs
    weight_decay=0.05,
    no_decay=r"(bias|scale|cls)$",
    clip_norm=3.0,
  )
  config.checkpoint.every = 5 * epoch
  config.eval.every = 20 * epoch
  return config
