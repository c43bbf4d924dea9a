"""VQ-KD, the tokenizer of BEiT v2 (arXiv:2208.06366).

small: 60,000 real images of 28x28 pixels, see maskjax/recipes; the teacher is an MAE.
  maskjax train --config configs/image/mae.py:small --workdir runs/mae_small
  maskjax train --config configs/image/vqkd.py:small --workdir runs/vqkd_small

imagenet: the paper's appendix, ViT-B/16 with CLIP's ViT-B/16 as teacher, whose weights
  stand in CLIP_DIR, a CLIPModel in the Hugging Face layout:
  maskjax convert --from_hf CLIP_DIR \
    --config configs/image/teacher.py:clip_b16_projected \
    --workdir runs/clip_b16_projected
  maskjax train --config configs/image/vqkd.py:imagenet --workdir runs/vqkd

imagenet_dino: the same with DINO's ViT-B/16 as teacher, and one block in the decoder.
  maskjax convert --from_hf DINO_DIR --config configs/image/teacher.py:dino_b16 \
    --workdir runs/dino_b16
  maskjax train --config configs/image/vqkd.py:imagenet_dino --workdir runs/vqkd_dino
"""

from maskjax import recipes


def small():
  config = recipes.small_image(
    image_size=(28, 28),
    num_steps=1500,
    learning_rate=1e-3,
    warmup_steps=100,
    b2=0.99,
    weight_decay=1e-4,
    probes=("knn", "linear"),
  )
  config.objective.update(
    name="vqkd",
    encoder=dict(width=64, depth=2, heads=2),
    decoder=dict(depth=1),
    num_codes=128,
    code_dim=16,
    decay=0.99,
    teacher=recipes.frozen("configs/image/mae.py:small", workdir="runs/mae_small"),
  )
  return config


def imagenet():
  config = recipes.imagenet_vit(
    epochs=100,
    warmup_epochs=10,
    batch_size=512,
    learning_rate=5e-5,
    base_batch=128,
    final_learning_rate=1e-5,
    b2=0.99,
    weight_decay=1e-4,
    no_decay=r"(bias|scale|cls|positions)$",
    scale=(0.08, 1.0),
    colors=recipes.SIGNED_COLORS,
  )
  config.objective.update(
    name="vqkd",
    encoder=dict(size="B"),
    decoder=dict(width=768, depth=3, heads=12),
    num_codes=8192,
    code_dim=32,
    decay=0.99,
    teacher=recipes.frozen(
      "configs/image/teacher.py:clip_b16_projected",
      workdir="runs/clip_b16_projected",
      batch_colors=recipes.SIGNED_COLORS,
    ),
  )
  return config


def imagenet_dino():
  config = imagenet()
  config.objective.decoder.depth = 1
  config.objective.teacher = recipes.frozen(
    "configs/image/teacher.py:dino_b16",
    workdir="runs/dino_b16",
    batch_colors=recipes.SIGNED_COLORS,
  )
  return config
