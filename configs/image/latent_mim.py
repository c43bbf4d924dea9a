"""Latent MIM (arXiv:2407.15837).

small: Fashion-MNIST, see maskjax/recipes; docs/results/image.md has its numbers.
  maskjax train --config configs/image/latent_mim.py:small --workdir runs/lmim_small

imagenet: the README's command, ViT-B/16 for 800 epochs, through TFDS.
  maskjax train --config configs/image/latent_mim.py:imagenet --workdir runs/latent_mim
"""

from maskjax import recipes


def small():
  config = recipes.small_image(
    num_steps=2200,
    warmup_steps=150,
  )
  # 7x7 patches of 4x4 pixels, a pixel apart in training.
  config.data.train_transforms = (
    dict(name="resize", size=35),
    dict(name="spaced_patches", patch_size=4, gap=1),
    *config.data.train_transforms,
  )
  config.objective.update(
    name="latent_mim",
    projector=dict(hidden=256, depth=3),
    decoder=dict(width=64, depth=1, heads=2),
    teacher=dict(name="ema", decay=0.99, last=1.0),
    mask_ratio=0.75,
    temperature=0.2,
  )
  return config


def imagenet():
  # 14x14 patches of 16x16 pixels, 4 apart in training.
  config = recipes.imagenet_vit(
    epochs=800,
    warmup_epochs=40,
    batch_size=4096,
    learning_rate=1.5e-4,
    base_batch=256,
    b1=0.9,
    b2=0.95,
    weight_decay=0.05,
    no_decay=r"(bias|scale)$|embed/",
  )
  # The warm-up begins where the schedule ends.
  lowest = config.optimizer.get_ref("learning_rate") / 4
  config.optimizer.initial_learning_rate = lowest
  config.optimizer.final_learning_rate = lowest
  config.data.train_transforms = (
    dict(name="random_resized_crop", size=280, scale=(0.2, 1.0)),
    "random_flip",
    dict(name="spaced_patches", patch_size=16, gap=4),
    *config.data.train_transforms[2:],
  )
  config.objective.update(
    name="latent_mim",
    encoder=dict(size="B"),
    projector=dict(hidden=4096, depth=3),
    decoder=dict(width=512, depth=3, heads=16),
    teacher=dict(name="ema", decay=0.99, last=1.0),
    mask_ratio=0.9,
    temperature=0.2,
    similarity=(0.75, 0.25),
    similarity_weight=0.1,
  )
  return config
