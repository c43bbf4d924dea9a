"""CrossMAE (arXiv:2401.14391).

small: Fashion-MNIST, see maskjax/recipes.py.
  maskjax train --config configs/image/crossmae.py:small --workdir runs/crossmae_small

imagenet: the paper's ViT-B/16 with a decoder of 12 blocks, through TFDS.
  maskjax train --config configs/image/crossmae.py:imagenet --workdir runs/crossmae
"""

from maskjax import config as configs
from maskjax import recipes


def get_config(setting=None):
  return configs.setting(setting, {"small": small, "imagenet": imagenet})


def small():
  config = recipes.fashion_mnist()
  config.num_steps = 3000
  config.objective = dict(
    name="crossmae",
    image_size=(28, 28),
    channels=1,
    patch_size=4,
    encoder=dict(width=64, depth=4, heads=2),
    decoder=dict(width=64, depth=2, heads=2),
    mask_ratio=0.75,
    prediction_ratio=0.25,
    norm_pix_loss=False,
    dtype="float32",
  )
  config.optimizer = dict(
    name="adamw",
    learning_rate=3e-3,
    warmup_steps=200,
    weight_decay=0.05,
  )
  config.eval.probes = ("knn", "linear", "plain")
  return config


def imagenet():
  config = recipes.imagenet()
  config.batch_size = 4096
  epoch = recipes.epoch(config)
  config.num_steps = 800 * epoch
  config.objective = dict(
    name="crossmae",
    image_size=224,
    channels=3,
    patch_size=16,
    encoder=dict(size="B"),
    decoder=dict(width=512, depth=12, heads=16),
    mask_ratio=0.75,
    prediction_ratio=0.25,
    norm_pix_loss=True,
    dtype="bfloat16",
    scan=False,
    remat="none",  # or "dots", "full"
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
