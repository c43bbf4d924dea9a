"""MaskDistill (arXiv:2210.10615).

small: 60,000 real images of 28x28 pixels, see maskjax/recipes; the teacher is an MAE:
  maskjax train --config configs/image/mae.py:small --workdir runs/mae_small
  maskjax train --config configs/image/maskdistill.py --workdir runs/maskdistill

imagenet: the paper's ViT-B/16 for 300 epochs; the teacher is CLIP's ViT-B/16, see
  configs/image/teacher.py. Images are normalized as CLIP's inputs are.
  maskjax train --config configs/image/maskdistill.py:imagenet \
    --workdir runs/maskdistill
"""

from maskjax import recipes


def small():
  config = recipes.small_image(
    num_steps=1000,
    warmup_steps=60,
  )
  config.objective.update(
    name="maskdistill",
    teacher=recipes.frozen("configs/image/mae.py:small", workdir="runs/mae_small"),
    mask=dict(name="blockwise", min_patches=4),
    mask_ratio=0.4,
    drop_path=0.0,
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
    b2=0.999,
    weight_decay=0.05,
    clip_norm=3.0,
    colors=recipes.CLIP_COLORS,
  )
  config.objective.update(
    name="maskdistill",
    teacher=recipes.frozen(
      "configs/image/teacher.py:clip_b16", workdir="runs/clip_b16"
    ),
    encoder=dict(size="B"),
    mask="blockwise",
    mask_ratio=0.4,
    layer_scale=0.1,
    drop_path=0.1,
  )
  return config
