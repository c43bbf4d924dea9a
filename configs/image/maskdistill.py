"""MaskDistill (arXiv:2210.10615).

small: 60,000 real images of 28x28 pixels, see maskjax/recipes; the teacher is an MAE:
  maskjax train --config configs/image/mae.py:small --workdir runs/mae_small
  maskjax train --config configs/image/maskdistill.py --workdir runs/maskdistill

imagenet: the paper's ViT-B/16 for 300 epochs; the teacher is CLIP's ViT-B/16, whose
  weights stand in CLIP_DIR, a CLIPModel or CLIPVisionModel in the Hugging Face layout.
  What the paper leaves open is as in BEiT v2, of the same authors.
  maskjax convert --from_hf CLIP_DIR --config configs/image/teacher.py:clip_b16 \
    --workdir runs/clip_b16
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
    no_decay=r"(bias|scale|cls)$",
    clip_norm=3.0,
  )
  # Of the whole image, and so before it is cropped.
  jitter = dict(name="color_jitter", brightness=0.4, contrast=0.4, saturation=0.4)
  crop, flip, *rest = config.data.train_transforms
  config.data.train_transforms = (jitter, flip, crop, *rest)
  config.objective.update(
    name="maskdistill",
    teacher=recipes.frozen(
      "configs/image/teacher.py:clip_b16",
      workdir="runs/clip_b16",
      batch_colors=recipes.COLORS,
    ),
    encoder=dict(size="B"),
    mask=dict(name="blockwise", min_patches=16),
    mask_ratio=0.4,  # 78 of 196 patches
    layer_scale=0.1,
    drop_path=0.1,
  )
  return config
