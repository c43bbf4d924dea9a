"""MaskFeat (arXiv:2112.09133).

small: 60,000 real images of 28x28 pixels, see maskjax/recipes.
  maskjax train --config configs/image/maskfeat.py:small --workdir runs/maskfeat

imagenet: the paper's recipe for images, ViT-B/16, through TFDS.
  maskjax train --config configs/image/maskfeat.py:imagenet --workdir runs/maskfeat
"""

from maskjax import recipes


def small():
  config = recipes.small_image(
    num_steps=1200,
    learning_rate=2e-3,
    warmup_steps=80,
    probes=("knn", "linear"),
  )
  config.objective.update(
    name="maskfeat",
    cell_size=2,  # 2x2 in a patch, as in the paper
    mask=dict(name="blockwise", min_patches=4),  # of 49 as 16 of 196
    mask_ratio=0.4,
  )
  return config


def imagenet():
  config = recipes.imagenet_vit(
    epochs=1600,
    warmup_epochs=30,
    batch_size=2048,
    learning_rate=2e-4,
    base_batch=256,
    b1=0.9,
    b2=0.999,
    weight_decay=0.05,
    clip_norm=0.02,
    scale=(0.5, 1.0),
  )
  ends = 1e-6 * config.get_ref("batch_size") / 256
  config.optimizer.initial_learning_rate = ends
  config.optimizer.final_learning_rate = ends
  config.objective.update(
    name="maskfeat",
    cell_size=8,
    orientations=9,
    encoder=dict(size="B"),
    mask=dict(name="blockwise", min_patches=15),  # a fifth of what is masked
    mask_ratio=0.4,
  )
  return config
