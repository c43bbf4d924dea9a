"""CroCo (arXiv:2210.10716) and CroCo v2 (arXiv:2211.10408).

small: Fashion-MNIST, see maskjax/recipes; the second view of an image is the image
under a random affine map.
  maskjax train --config configs/image/croco.py:small --workdir runs/croco_small

habitat: the paper's ViT-B/16 on 1.8 million pairs of 256x256 pixels, rendered by the
Habitat simulator: 400 epochs, half of a schedule of 800. `data.train.root` is the
folder of the images and of pairs.txt, which names two images a line.
  maskjax train --config configs/image/croco.py:habitat --workdir runs/croco
v2: CroCo v2's largest, ViT-L/16 with rotary positions and a larger decoder, in float32,
on real pairs besides, all named by one pairs.txt. Of the paper's 7.1 million pairs 5.65
million can be had; their authors make up for the others by 125 of 250 epochs, where the
paper has 100 of 200.
"""

from maskjax import recipes


def small():
  config = recipes.small_image(
    image_size=(28, 28),
    num_steps=900,
    warmup_steps=60,
  )
  config.objective.update(
    name="croco",
    decoder=dict(width=64, depth=2, heads=2),
    positions="sincos",  # or "rotary"
    mask_ratio=0.9,
    norm_pix_loss=False,
  )
  transforms = ("second_view", *config.data.train_transforms)
  config.data.train_transforms = config.data.test_transforms = transforms
  return config


def habitat(examples=1_800_000, epochs=400, warmup_epochs=40, **shape):
  config = recipes.imagenet()
  config.batch_size = 256
  epoch = recipes.epoch(config, examples)
  config.num_steps = epochs * epoch
  config.objective = dict(
    name="croco",
    image_size=224,
    channels=3,
    patch_size=16,
    encoder=dict(size="B"),
    decoder=dict(width=512, depth=8, heads=16),
    positions="sincos",
    mask_ratio=0.9,
    norm_pix_loss=True,
    dtype="bfloat16",
    scan=False,
    remat="none",  # or "dots", "full"
  )
  config.objective.update(shape)
  config.optimizer = dict(
    name="adamw",
    learning_rate=1.5e-4 * config.get_ref("batch_size") / 256,
    num_steps=2 * config.get_ref("num_steps"),
    warmup_steps=warmup_epochs * epoch,
    b1=0.9,
    b2=0.95,
    weight_decay=0.05,
  )
  to_numbers = config.data.train_transforms[-2:]
  config.data.train = dict(name="image_pairs", root="data/habitat", pairs="pairs.txt")
  config.data.test = dict()
  config.data.train_transforms = (
    dict(name="random_crop", size=224),
    dict(name="color_jitter", brightness=0.4, contrast=0.4, saturation=0.4),
    *to_numbers,
  )
  config.data.test_transforms = (dict(name="center_crop", size=224), *to_numbers)
  config.eval.probes = ()
  config.checkpoint.every = 5 * epoch
  return config


def v2():
  config = habitat(
    examples=5_650_000,
    epochs=125,
    warmup_epochs=12,
    positions="rotary",
    encoder=dict(size="L"),
    decoder=dict(width=768, depth=12, heads=12),
    dtype="float32",
  )
  config.batch_size = 512
  config.data.train.root = "data/croco_v2"
  return config
