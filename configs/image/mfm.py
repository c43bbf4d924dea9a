"""MFM (arXiv:2206.07706).

small: Fashion-MNIST, see maskjax/recipes. Patches of 7 pixels: an encoder that sees
all of them has time for three times as many steps as with patches of 4.
  maskjax train --config configs/image/mfm.py:small --workdir runs/mfm_small
small_resnet: the same with a ResNet of stride 4; not measured.

imagenet: the paper's ViT-B/16, 300 epochs.
imagenet_resnet50: its ResNet-50.
"""

from maskjax import recipes


def small():
  config = recipes.small_image(
    patch_size=7,
    image_size=(28, 28),
    num_steps=5000,
    warmup_steps=300,
    clip_norm=3.0,
  )
  config.objective.encoder.positions = "sincos"
  config.objective.update(
    name="mfm",
    mean=0.286,  # as the data are normalized
    std=0.353,
    radius=3.0,
    low_pass=0.5,
    gamma=1.0,
  )
  return config


def small_resnet():
  config = small()
  config.num_steps = 1200
  config.objective.patch_size = 4
  config.objective.encoder = dict(
    name="resnet",
    widths=(16, 64, 128),
    depths=(1, 1, 1),
    bottleneck=False,
    stem_stride=1,
    stem_width=16,
  )
  config.objective.low_pass = 0.3
  return config


def imagenet():
  config = recipes.imagenet_vit(
    epochs=300,
    warmup_epochs=20,
    batch_size=2048,
    learning_rate=3e-4,
    base_batch=512,
    patch_size=None,  # 16, or a CNN's stride
    b1=0.9,
    b2=0.95,
    weight_decay=0.05,
    no_decay=r"(bias|scale|cls|positions)$",
    clip_norm=3.0,
    counts_warmup=True,
  )
  config.optimizer.initial_learning_rate = 2.5e-7 * config.get_ref("batch_size") / 512
  config.optimizer.final_learning_rate = 2.5e-6 * config.get_ref("batch_size") / 512
  config.objective.update(
    name="mfm",
    **recipes.COLORS,
    encoder=dict(size="B", positions="learned", key_bias=False),
    radius=16.0,
    low_pass=0.5,
    gamma=1.0,
  )
  return config


def imagenet_resnet50():
  config = imagenet()
  config.objective.encoder = dict(size="resnet50")
  del config.objective.scan, config.objective.remat  # of vision transformers
  config.objective.low_pass = 0.3
  return config
