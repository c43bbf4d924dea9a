"""LocalMIM (arXiv:2303.05251).

small: 60,000 real images of 28x28 pixels, see maskjax/recipes.
  maskjax train --config configs/image/localmim.py:small --workdir runs/localmim

  With a black margin of 2 pixels: 8x8 patches can be joined to larger regions, 7x7
  cannot. Four blocks have three decoders; regions of 1 pixel have no histogram.

imagenet: the paper's recipe, ViT-B/16, through TFDS.
  maskjax train --config configs/image/localmim.py:imagenet --workdir runs/localmim
"""

from maskjax import recipes


def small():
  config = recipes.small_image(
    image_size=32,
    num_steps=1400,
    warmup_steps=90,
    probes=("knn", "linear"),
  )
  config.objective.update(
    name="localmim",
    layers=(1, 3, 4),
    scales=(2, 1, 0.5),
    decoder=dict(width=64, depth=1, heads=2),
    mask_ratio=0.75,
  )
  margin = dict(name="random_crop", size=32, padding=2)  # crops all there is
  config.data.train_transforms = (margin, *config.data.train_transforms)
  config.data.test_transforms = (margin, *config.data.test_transforms)
  return config


def imagenet():
  config = recipes.imagenet_vit(
    epochs=1600,
    warmup_epochs=40,
    batch_size=2048,
    learning_rate=2e-4,
    base_batch=256,
    final_learning_rate=1e-6,
    b1=0.9,
    b2=0.95,
    weight_decay=0.05,
    scale=(0.2, 1.0),
  )
  config.objective.update(
    name="localmim",
    encoder=dict(size="B"),
    layers=(2, 4, 10, 12),
    scales=(4, 2, 1, 0.5),
    decoder=dict(width=256, depth=1, heads=8),
    target="hog",
    orientations=9,
    mask_ratio=0.75,
  )
  return config
