"""VQ-KD, the tokenizer of BEiT v2 (arXiv:2208.06366).

small: 60,000 real images of 28x28 pixels, see maskjax/recipes.py; taught by an MAE.
  maskjax train --config configs/image/mae.py:small --workdir runs/mae_small
  maskjax train --config configs/image/vqkd.py:small --workdir runs/vqkd_small

imagenet: the paper's appendix, ViT-B/16. The paper's teachers are CLIP's and DINO's
  ViT-B/16; give one as --config.objective.teacher.workdir. Its objective stands in
  `teacher`, for one that was trained here.
  maskjax train --config configs/image/vqkd.py:imagenet --workdir runs/vqkd
"""

from maskjax import config as configs
from maskjax import recipes


def get_config(setting=None):
  return configs.setting(setting, {"small": small, "imagenet": imagenet})


def small():
  config = recipes.fashion_mnist()
  config.num_steps = 1500
  config.objective = dict(
    name="vqkd",
    image_size=(28, 28),
    channels=1,
    patch_size=4,
    encoder=dict(width=64, depth=2, heads=2),
    decoder=dict(depth=1),
    num_codes=128,
    code_dim=16,
    decay=0.99,
    teacher=dict(
      name="frozen",
      objective=configs.load("configs/image/mae.py:small").objective,
      workdir="runs/mae_small",
    ),
    dtype="float32",
  )
  config.optimizer = dict(
    name="adamw",
    learning_rate=1e-3,
    warmup_steps=100,
    b2=0.99,
    weight_decay=1e-4,
  )
  return config


def imagenet():
  config = recipes.imagenet(scale=(0.08, 1.0))
  config.batch_size = 512
  epoch = recipes.epoch(config)
  config.num_steps = 100 * epoch
  config.objective = dict(
    name="vqkd",
    image_size=224,
    channels=3,
    patch_size=16,
    encoder=dict(size="B"),
    decoder=dict(width=768, depth=3, heads=12),
    num_codes=8192,
    code_dim=32,
    decay=0.99,
    teacher=dict(
      name="frozen",
      objective=configs.load("configs/image/mae.py:imagenet").objective,
      workdir="",
    ),
    dtype="bfloat16",
  )
  config.optimizer = dict(
    name="adamw",
    learning_rate=5e-5 * config.get_ref("batch_size") / 128,
    final_learning_rate=1e-5,
    warmup_steps=10 * epoch,
    b2=0.99,
    weight_decay=1e-4,
    no_decay=r"(bias|scale|cls|positions)$",
  )
  config.checkpoint.every = 5 * epoch
  config.eval.every = 20 * epoch
  return config
