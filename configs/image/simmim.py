"""SimMIM (arXiv:2111.09886).

small: Fashion-MNIST, see maskjax/recipes; a ViT on two CPU cores. An encoder that
sees masked patches too is slow, so that patches are large here, masked one by one. Its
positions are fixed, since the paper's relative ones begin as none and take longer to
learn than all of this. docs/results/image.md has its numbers.
  maskjax train --config configs/image/simmim.py:small --workdir runs/simmim_small
small_swin: images of 32x32 pixels, and a Swin of two stages; not measured.
  maskjax train --config configs/image/simmim.py:small_swin --workdir runs/simmim_swin

imagenet: the paper's ViT-B/16, 800 epochs through TFDS.
  maskjax train --config configs/image/simmim.py:imagenet --workdir DIR
imagenet_swin, imagenet_swinv2: in the same way its Swin-B on 192x192 pixels, in
windows of 6x6 tokens, and its SwinV2-H, in windows of 12x12.
"""

from maskjax import recipes


def small():
  config = recipes.small_image(
    patch_size=7,
    num_steps=4000,
    warmup_steps=250,
  )
  config.objective.update(
    name="simmim",
    encoder_type="vit",
    encoder=dict(width=64, depth=4, heads=2, positions="sincos", layer_scale=None),
    mask_patch_size=7,
    mask_ratio=0.6,
  )
  return config


def small_swin():
  config = small()
  config.num_steps = 1500
  config.optimizer.warmup_steps = 150
  for transforms in ("train_transforms", "test_transforms"):
    config.data[transforms] = (dict(name="resize", size=32), *config.data[transforms])
  config.objective.update(image_size=32, patch_size=4, mask_patch_size=8)
  config.objective.encoder_type = "swin"
  config.objective.encoder = dict(width=64, depths=(2, 2), heads=(2, 4), window=4)
  return config


def imagenet():
  config = recipes.imagenet_vit(
    epochs=800,
    warmup_epochs=10,
    batch_size=2048,
    learning_rate=1e-4,
    base_batch=512,
    b1=0.9,
    b2=0.999,
    weight_decay=0.05,
    no_decay=r"(bias|scale|cls)$",  # relative positions and the mask token do decay
    clip_norm=5.0,
    scale=(0.67, 1.0),
    method="bilinear",
  )
  config.optimizer.initial_learning_rate = 5e-7 * config.get_ref("batch_size") / 512
  config.optimizer.drop_at = 700 * recipes.epoch(config)
  del config.objective.scan  # Swin's blocks differ from each other
  config.objective.update(
    name="simmim",
    encoder_type="vit",
    encoder=dict(size="B", positions="relative", layer_scale=0.1, key_bias=False),
    mask_patch_size=32,
    mask_ratio=0.6,
    drop_path=0.1,
  )
  return config


def imagenet_swin():
  config = imagenet()
  config.data = recipes.imagenet(size=192, scale=(0.67, 1.0), method="bilinear").data
  # The authors exempt the biases of positions as well, by a name that none has.
  config.optimizer.no_decay = r"(bias|scale|mask_token)$"
  config.objective.image_size = 192
  config.objective.patch_size = 4
  config.objective.encoder_type = "swin"
  config.objective.encoder = dict(size="B", window=6)
  config.objective.drop_path = 0.0
  return config


def imagenet_swinv2():
  config = imagenet_swin()
  config.objective.encoder_type = "swinv2"
  config.objective.encoder = dict(size="H", window=12)
  config.objective.remat = "full"
  config.mesh = dict(data=1, fsdp=-1, tensor=1)
  return config
