"""CCViT (arXiv:2303.04664).

The centroids are those of the patches of the run's first batch; they are found before
the first step, and every checkpoint holds them.

small: Fashion-MNIST, see maskjax/recipes.
  maskjax train --config configs/image/ccvit.py:small --workdir runs/ccvit_small

imagenet: the paper's ViT-B/16 in 300 epochs, through TFDS. Its 8,192 centroids are of
2,048 images, 49 patches a centroid, where the paper takes 50,000.
  maskjax train --config configs/image/ccvit.py:imagenet --workdir runs/ccvit
"""

from maskjax import recipes


def small():
  config = recipes.small_image(
    image_size=(28, 28),
    num_steps=900,
    warmup_steps=60,
  )
  config.objective.update(
    name="ccvit",
    branch=dict(early=3, depth=1),
    num_centroids=128,
    kmeans_steps=20,
    mask=dict(name="blockwise", min_patches=4),
    mask_ratio=0.38,
    replace_ratio=0.1,
    norm_pix_loss=False,
    layer_scale=0.1,
  )
  return config


def imagenet():
  config = recipes.imagenet_vit(
    epochs=300,
    warmup_epochs=10,
    batch_size=2048,
    learning_rate=1.5e-3,
    final_learning_rate=1e-5,
    b1=0.9,
    b2=0.98,
    weight_decay=0.05,
    no_decay=r"(bias|scale|cls)$",
    clip_norm=3.0,
  )
  config.objective.update(
    name="ccvit",
    encoder=dict(size="B"),
    branch=dict(early=9, depth=2),
    num_centroids=8192,
    kmeans_steps=20,
    mask=dict(name="blockwise", min_patches=16),
    mask_ratio=0.38,  # 75 of 196 patches
    replace_ratio=0.1,  # 20 of 196 patches
    norm_pix_loss=True,
    colors=recipes.COLORS,
    layer_scale=0.1,  # 1e-5 for ViT-L
  )
  return config
