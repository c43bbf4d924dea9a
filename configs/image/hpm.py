"""HPM (arXiv:2304.05919).

small: Fashion-MNIST, see maskjax/recipes.
  maskjax train --config configs/image/hpm.py:small --workdir runs/hpm_small

imagenet: the paper's ViT-B/16, 800 epochs, through TFDS.
  maskjax train --config configs/image/hpm.py:imagenet --workdir runs/hpm
"""

from maskjax import recipes


def small():
  config = recipes.small_image(
    image_size=(28, 28),
    num_steps=1500,
    warmup_steps=100,
    probes=("knn", "linear"),
  )
  config.objective.update(
    name="hpm",
    decoder=dict(width=64, depth=1, heads=2),
    mask_ratio=0.75,
    hard_ratio=(0.0, 0.5),
    norm_pix_loss=False,
    teacher=dict(name="ema", decay=0.99),
  )
  return config


def imagenet():
  config = recipes.imagenet_vit(
    epochs=800,
    warmup_epochs=40,
    batch_size=2048,
    learning_rate=1.5e-4,
    base_batch=256,
    b1=0.9,
    b2=0.95,
    weight_decay=0.05,
  )
  epoch = recipes.epoch(config)
  config.objective.update(
    name="hpm",
    encoder=dict(size="B"),
    decoder=dict(width=512, depth=8, heads=16),
    mask_ratio=0.75,
    hard_ratio=(0.0, 0.5),
    norm_pix_loss=False,
    teacher=dict(
      name="ema", decay=0.999, last=0.9999, num_steps=100 * epoch, shape="linear"
    ),
  )
  return config
