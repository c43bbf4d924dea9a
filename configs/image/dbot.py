"""dBOT (arXiv:2209.03917).

small: 60,000 real images of 28x28 pixels, see maskjax/recipes; two stages,
  the first teacher is random.
  maskjax train --config configs/image/dbot.py --workdir runs/dbot

imagenet: the paper's ViT-B/16, two stages of 800 epochs.
  maskjax train --config configs/image/dbot.py:imagenet --workdir runs/dbot
"""

from maskjax import recipes


def small():
  config = recipes.small_image(
    num_steps=1900,
    warmup_steps=120,
    cycles=2,  # as many as stages,
  )
  config.objective.update(
    name="dbot",
    teacher=dict(name="bootstrap", stages=2),
    decoder=dict(width=64, depth=1, heads=2),
    mask_ratio=0.75,
    drop_path=0.0,
  )
  return config


def imagenet():
  config = recipes.imagenet_vit(
    epochs=1600,
    warmup_epochs=40,
    batch_size=4096,
    learning_rate=1.5e-4,
    base_batch=256,
    cycles=2,  # as many as stages
    b1=0.9,
    b2=0.95,
    weight_decay=0.05,
    clip_norm=3.0,
  )
  config.objective.update(
    name="dbot",
    teacher=dict(name="bootstrap", stages=2),
    encoder=dict(size="B"),
    decoder=dict(width=512, depth=8, heads=16),
    mask_ratio=0.75,
    drop_path=0.2,
  )
  return config
