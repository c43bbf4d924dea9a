"""CrossMAE (arXiv:2401.14391).

small: Fashion-MNIST, see maskjax/recipes.
  maskjax train --config configs/image/crossmae.py:small --workdir runs/crossmae_small

imagenet: the paper's ViT-B/16 with a decoder of 12 blocks, through TFDS.
  maskjax train --config configs/image/crossmae.py:imagenet --workdir runs/crossmae
"""

from maskjax import recipes


def small():
  config = recipes.small_image(
    image_size=(28, 28),
    num_steps=3000,
    warmup_steps=200,
  )
  config.objective.update(
    name="crossmae",
    decoder=dict(width=64, depth=2, heads=2),
    mask_ratio=0.75,
    prediction_ratio=0.25,
    norm_pix_loss=False,
  )
  return config


def imagenet():
  mask_ratio, prediction_ratio = 0.75, 0.25
  config = recipes.imagenet_vit(
    epochs=800,
    warmup_epochs=40,
    batch_size=4096,
    # The authors scale it by the share of the masked patches that is predicted.
    learning_rate=1.5e-4 * prediction_ratio / mask_ratio,
    base_batch=256,
    b1=0.9,
    b2=0.95,
    weight_decay=0.05,
  )
  config.objective.update(
    name="crossmae",
    encoder=dict(size="B"),
    decoder=dict(width=512, depth=12, heads=16),
    mask_ratio=mask_ratio,
    prediction_ratio=prediction_ratio,
    norm_pix_loss=True,
  )
  return config
