"""DMAE (arXiv:2208.12256).

small: 60,000 real images of 28x28 pixels, see maskjax/recipes; the teacher is an MAE:
  maskjax train --config configs/image/mae.py:small --workdir runs/mae_small
  maskjax train --config configs/image/dmae.py --workdir runs/dmae

imagenet: the paper's ViT-B/16 for 100 epochs; the teacher is MAE's ViT-L/16 that
  predicts pixels as they are, trained by the first command or imported by
  `maskjax convert`.
  maskjax train --config configs/image/dmae.py:teacher --workdir runs/mae_pixels
  maskjax train --config configs/image/dmae.py:imagenet --workdir runs/dmae
"""

from maskjax import config as configs
from maskjax import recipes


def small():
  config = recipes.small_image(
    num_steps=2600,
    warmup_steps=170,
  )
  config.objective.update(
    name="dmae",
    teacher=recipes.frozen("configs/image/mae.py:small", workdir="runs/mae_small"),
    decoder=dict(width=64, depth=1, heads=2),
    mask_ratio=0.75,
    norm_pix_loss=False,
  )
  return config


def teacher():
  config = configs.load("configs/image/mae.py:imagenet")
  config.objective.norm_pix_loss = False
  return config


def imagenet():
  config = recipes.imagenet_vit(
    epochs=100,
    warmup_epochs=20,
    batch_size=4096,
    learning_rate=1.5e-4,
    base_batch=256,
    b1=0.9,
    b2=0.95,
    weight_decay=0.05,
  )
  config.objective.update(
    name="dmae",
    teacher=recipes.frozen("configs/image/dmae.py:teacher", workdir="runs/mae_pixels"),
    encoder=dict(size="B"),
    decoder=dict(width=512, depth=8, heads=16),
    mask_ratio=0.75,
    norm_pix_loss=False,
    layer=9,
    teacher_layer=18,
  )
  return config
