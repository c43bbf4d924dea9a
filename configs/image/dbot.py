"""dBOT (arXiv:2209.03917).

small: 60,000 real images of 28x28 pixels, see maskjax/recipes; two stages,
  the first teacher is random.
  maskjax train --config configs/image/dbot.py --workdir runs/dbot

imagenet: the paper's ViT-B/16, two stages of 800 epochs.
  maskjax train --config configs/image/dbot.py:imagenet --workdir runs/dbot

imagenet_clip: the paper's ViT-B/16 for 1600 epochs with CLIP's ViT-B/16 as teacher,
  whose weights stand in CLIP_DIR, a CLIPModel in the Hugging Face layout; the student
  is symmetric, as in BEiT.
  maskjax convert --from_hf CLIP_DIR \
    --config configs/image/teacher.py:clip_b16_projected \
    --workdir runs/clip_b16_projected
  maskjax train --config configs/image/dbot.py:imagenet_clip --workdir runs/dbot_clip
"""

from maskjax import recipes


def small():
  config = recipes.small_image(
    num_steps=1900,
    warmup_steps=120,
    cycles=2,  # as many as stages
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


def imagenet_clip():
  config = recipes.imagenet_vit(
    epochs=1600,
    warmup_epochs=10,
    batch_size=4096,
    learning_rate=3e-3,
    final_learning_rate=1e-5,
    scale=(0.4, 1.0),
    b1=0.9,
    b2=0.98,
    epsilon=1e-6,
    weight_decay=0.05,
    no_decay=r"(bias|scale|cls)$",
    clip_norm=3.0,
  )
  jitter = dict(name="color_jitter", brightness=0.4, contrast=0.4, saturation=0.4)
  config.data.train_transforms = (jitter, *config.data.train_transforms)
  config.objective.update(
    name="dbot",
    teacher=recipes.frozen(
      "configs/image/teacher.py:clip_b16_projected",
      workdir="runs/clip_b16_projected",
      batch_colors=recipes.COLORS,
    ),
    encoder=dict(size="B"),
    masked_patches="token",
    positions="relative",
    key_bias=False,
    layer_scale=0.1,
    mask=dict(name="blockwise", min_patches=16),
    mask_ratio=0.397,  # 78 of 196 patches
    target="features",
    error="cosine",
    drop_path=0.1,
  )
  return config
