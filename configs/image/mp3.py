"""MP3 (arXiv:2207.07611).

small: Fashion-MNIST, see maskjax/recipes.
  maskjax train --config configs/image/mp3.py:small --workdir runs/mp3_small

imagenet: the paper's ViT-B/16 in 100 epochs, through TFDS. No code was published: the
  optimizer and the augmentation are MAE's.
  maskjax train --config configs/image/mp3.py:imagenet --workdir runs/mp3
"""

from maskjax import recipes


def small():
  config = recipes.small_image(
    image_size=(28, 28),
    num_steps=1500,
    warmup_steps=100,
  )
  config.objective.update(
    name="mp3",
    mask_ratio=0.75,
  )
  return config


def imagenet():
  config = recipes.imagenet_vit(
    epochs=100,
    warmup_epochs=20,
    batch_size=4096,
    learning_rate=1.5e-4,
    base_batch=256,
    b1=0.9,
    b2=0.95,
    weight_decay=0.05,
  )
  config.objective.update(
    name="mp3",
    encoder=dict(size="B"),
    class_token=True,
    mask_ratio=0.75,
  )
  return config
