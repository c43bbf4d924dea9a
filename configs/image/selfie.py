"""Selfie (arXiv:1906.02940).

small: Fashion-MNIST, see maskjax/recipes.
  maskjax train --config configs/image/selfie.py:small --workdir runs/selfie_small
  Patches of 7 pixels: as in the paper's small images there are 16 of them, each wide
  enough for a convolutional network. Probes read that network, run over whole images.

imagenet: the paper's, the first three stages of a ResNet-50.
"""

from maskjax import recipes


def small():
  config = recipes.fashion_mnist()
  config.num_steps = 1150
  config.objective = dict(
    name="selfie",
    image_size=(28, 28),
    channels=1,
    patch_size=7,
    encoder=dict(
      name="resnet",
      widths=(16, 32, 64),
      depths=(1, 1, 1),
      bottleneck=False,
      stem_stride=1,
      stem_width=16,
    ),
    pooling=dict(depth=2, heads=4, mlp_ratio=0.625),
    positions="each",
    mask_ratio=0.25,
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
  config = recipes.imagenet()
  config.batch_size = 1024
  config.num_steps = 120_000
  config.objective = dict(
    name="selfie",
    image_size=224,
    channels=3,
    patch_size=32,
    encoder=dict(name="resnet", widths=(256, 512, 1024), depths=(3, 4, 6)),
    pooling=dict(depth=3, heads=32, mlp_ratio=0.625),
    positions="rows_columns",
    mask_ratio=0.25,
    dtype="bfloat16",
  )
  config.optimizer = dict(
    name="sgd",
    learning_rate=0.1,
    warmup_steps=100,
    momentum=0.9,
    nesterov=True,
    weight_decay=1e-4,
  )
  config.checkpoint.every = 5000
  config.eval.every = 20_000
  return config
