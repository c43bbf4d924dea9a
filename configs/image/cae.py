"""CAE (arXiv:2202.03026), with the tokenizer of configs/image/vqkd.py.

small: 60,000 real images of 28x28 pixels, see maskjax/recipes.
  maskjax train --config configs/image/mae.py:small --workdir runs/mae_small
  maskjax train --config configs/image/vqkd.py:small --workdir runs/vqkd_small
  maskjax train --config configs/image/cae.py:small --workdir runs/cae_small

imagenet: the paper's appendix, ViT-B/16, 800 epochs; but for the tokenizer, which is
  DALL-E's there. CLIP_DIR holds a CLIPModel, see configs/image/vqkd.py.
  maskjax convert --from_hf CLIP_DIR \
    --config configs/image/teacher.py:clip_b16_projected \
    --workdir runs/clip_b16_projected
  maskjax train --config configs/image/vqkd.py:imagenet --workdir runs/vqkd
  maskjax train --config configs/image/cae.py:imagenet --workdir runs/cae
"""

from maskjax import recipes


def small():
  config = recipes.small_image(
    image_size=(28, 28),
    num_steps=1100,
    learning_rate=2e-3,
    warmup_steps=70,
    b2=0.98,
    clip_norm=3.0,
    probes=("knn", "linear"),
  )
  config.objective.update(
    name="cae",
    regressor_depth=2,
    decoder_depth=1,
    alignment=2.0,
    mask=dict(name="blockwise", min_patches=4),
    mask_ratio=0.5,
    layer_scale=0.1,
    drop_path=0.0,
    tokenizer=recipes.frozen("configs/image/vqkd.py:small", workdir="runs/vqkd_small"),
  )
  return config


def imagenet():
  config = recipes.imagenet_vit(
    epochs=800,
    warmup_epochs=20,
    batch_size=2048,
    learning_rate=1.5e-3,
    base_batch=2048,
    final_learning_rate=1e-5,
    b2=0.999,
    weight_decay=0.05,
    no_decay=r"(bias|scale)$",  # of the authors' model, which lists no exceptions
    clip_norm=3.0,
    scale=(0.08, 1.0),
  )
  config.objective.update(
    name="cae",
    encoder=dict(size="B"),
    regressor_depth=4,
    decoder_depth=4,
    alignment=2.0,
    mask=dict(name="blockwise", min_patches=16, attempts=10_000),  # until all fit
    mask_ratio=0.5,
    layer_scale=0.1,
    drop_path=0.1,
    tokenizer=recipes.frozen(
      "configs/image/vqkd.py:imagenet",
      workdir="runs/vqkd",
      batch_colors=recipes.COLORS,
    ),
  )
  return config
