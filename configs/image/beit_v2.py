"""BEiT v2 (arXiv:2208.06366), after its tokenizer, configs/image/vqkd.py.

small: 60,000 real images of 28x28 pixels, see maskjax/recipes.
  maskjax train --config configs/image/mae.py:small --workdir runs/mae_small
  maskjax train --config configs/image/vqkd.py:small --workdir runs/vqkd_small
  maskjax train --config configs/image/beit_v2.py:small --workdir runs/beit_v2_small

imagenet: the paper's appendix, ViT-B/16, 1600 epochs; CLIP_DIR holds a CLIPModel, see
  configs/image/vqkd.py.
  maskjax convert --from_hf CLIP_DIR \
    --config configs/image/teacher.py:clip_b16_projected \
    --workdir runs/clip_b16_projected
  maskjax train --config configs/image/vqkd.py:imagenet --workdir runs/vqkd
  maskjax train --config configs/image/beit_v2.py:imagenet --workdir runs/beit_v2
"""

from maskjax import recipes


def small():
  config = recipes.small_image(
    image_size=(28, 28),
    num_steps=900,
    learning_rate=2e-3,
    warmup_steps=60,
    b2=0.98,
    clip_norm=3.0,
    probes=("knn", "linear"),
  )
  config.objective.update(
    name="beit_v2",
    early_layer=3,
    head_depth=1,
    mask=dict(name="blockwise", min_patches=4),
    mask_ratio=0.4,
    layer_scale=0.1,
    drop_path=0.0,
    tokenizer=recipes.frozen("configs/image/vqkd.py:small", workdir="runs/vqkd_small"),
  )
  return config


def imagenet():
  config = recipes.imagenet_vit(
    epochs=1600,
    warmup_epochs=10,
    batch_size=2048,
    learning_rate=1.5e-3,
    base_batch=2048,
    final_learning_rate=1e-5,
    b2=0.999,  # 0.98 for 300 epochs
    weight_decay=0.05,
    no_decay=r"(bias|scale|cls)$",
    clip_norm=3.0,
  )
  # Of the whole image, and so before it is cropped.
  jitter = dict(name="color_jitter", brightness=0.4, contrast=0.4, saturation=0.4)
  crop, flip, *rest = config.data.train_transforms
  config.data.train_transforms = (jitter, flip, crop, *rest)
  config.objective.update(
    name="beit_v2",
    encoder=dict(size="B"),
    early_layer=9,
    head_depth=2,
    mask=dict(name="blockwise", min_patches=16),
    mask_ratio=0.382,  # 75 of 196 patches
    layer_scale=0.1,
    drop_path=0.1,  # 0 for 300 epochs
    tokenizer=recipes.frozen(
      "configs/image/vqkd.py:imagenet",
      workdir="runs/vqkd",
      batch_colors=recipes.COLORS,
    ),
  )
  return config
