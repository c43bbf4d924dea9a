"""ColorMAE (arXiv:2407.13036).

small: Fashion-MNIST, see maskjax/recipes; green noise.
  maskjax train --config configs/image/colormae.py:small --workdir runs/colormae_small
  Another color: --config.objective.mask=red (or blue, purple).

imagenet: the paper's ViT-B/16, 300 epochs, through TFDS.
  maskjax train --config configs/image/colormae.py:imagenet --workdir runs/colormae
"""

from maskjax import recipes


def small():
  config = recipes.small_image(
    image_size=(28, 28),
    num_steps=2800,
    warmup_steps=180,
    probes=("knn", "linear"),
  )
  config.objective.update(
    name="colormae",
    decoder=dict(width=64, depth=1, heads=2),
    mask="green",
    mask_ratio=0.75,
    norm_pix_loss=False,
  )
  return config


def imagenet():
  config = recipes.imagenet_vit(
    epochs=300,
    warmup_epochs=40,
    batch_size=4096,
    learning_rate=1.5e-4,
    base_batch=256,
    b1=0.9,
    b2=0.95,
    weight_decay=0.05,
    no_decay=r"(bias|scale|cls|mask_token)$",
    filled_up=True,
  )
  rate = config.optimizer.get_ref("learning_rate")
  config.optimizer.initial_learning_rate = rate * 1e-4
  config.objective.update(
    name="colormae",
    encoder=dict(size="B"),
    decoder=dict(width=512, depth=8, heads=16),
    mask="green",
    mask_ratio=0.75,
    norm_pix_loss=True,
  )
  return config
