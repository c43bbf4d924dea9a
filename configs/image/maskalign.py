"""MaskAlign (arXiv:2211.08887).

small: 60,000 real images of 28x28 pixels, see maskjax/recipes; the teacher is an MAE:
  maskjax train --config configs/image/mae.py:small --workdir runs/mae_small
  maskjax train --config configs/image/maskalign.py --workdir runs/maskalign

imagenet: the paper's ViT-B/16 for 200 epochs; the teacher is CLIP's ViT-B/16, whose
  weights stand in CLIP_DIR, a CLIPModel or CLIPVisionModel in the Hugging Face layout.
  maskjax convert --from_hf CLIP_DIR --config configs/image/teacher.py:clip_b16 \
    --workdir runs/clip_b16
  maskjax train --config configs/image/maskalign.py:imagenet --workdir runs/maskalign
"""

from maskjax import recipes


def small():
  config = recipes.small_image(
    num_steps=2100,
    warmup_steps=140,
  )
  config.objective.update(
    name="maskalign",
    teacher=recipes.frozen("configs/image/mae.py:small", workdir="runs/mae_small"),
    mask="attentive",
    mask_ratio=0.7,
    levels=2,
    drop_path=0.0,
  )
  return config


def imagenet():
  config = recipes.imagenet_vit(
    epochs=200,
    warmup_epochs=20,
    batch_size=1024,
    learning_rate=1.5e-4,
    base_batch=256,
    final_learning_rate=1e-5,
    b1=0.9,
    b2=0.95,
    weight_decay=0.05,
    no_decay=r"(bias|scale|^weights)$",  # nor those that mix blocks
  )
  config.objective.update(
    name="maskalign",
    teacher=recipes.frozen(
      "configs/image/teacher.py:clip_b16",
      workdir="runs/clip_b16",
      batch_colors=recipes.COLORS,
    ),
    encoder=dict(size="B"),
    mask="attentive",
    mask_ratio=0.7,
    levels=5,
    drop_path=0.1,
  )
  return config
