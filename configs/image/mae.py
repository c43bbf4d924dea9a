"""MAE (arXiv:2111.06377).

digits: 1,797 real handwritten digits of 8x8 pixels that come with scikit-learn.
  maskjax train --config configs/image/mae.py:digits --workdir runs/mae_digits
  72 s on two CPU cores. Held-out loss 0.307, of predicting the mean 0.541; linear
  probe 95.6 or 96.4, by machine (untrained encoder 88.3, raw pixels 96.4), neighbors
  94.4 or 94.2 (54.7, 97.5).

fashion_mnist: 60,000 real images of 28x28 pixels, see maskjax/recipes.
  maskjax train --config configs/image/mae.py:fashion_mnist --workdir runs/mae_fashion
  18.5 minutes on two CPU cores. Held-out loss 0.161, of predicting the mean 0.695.
              linear  lars  plain   knn
  trained       86.3  84.9  84.3  84.7
  untrained     77.6  73.0  70.0  71.9
  raw pixels    83.9  84.5  84.4  85.7

small: a narrower encoder; docs/results/image.md has it beside the other systems.

imagenet: the paper's table 8, ViT-L/16, through TFDS. docs/scaling.md has its plans.
imagenet_2b: the same with an encoder of two billion parameters, shared among all chips.
"""

from maskjax import config as configs
from maskjax import recipes


def digits():
  config = configs.defaults()
  config.num_steps = 1800
  config.batch_size = 128
  config.objective = dict(
    name="mae",
    image_size=(8, 8),
    channels=1,
    patch_size=2,
    encoder=dict(width=64, depth=2, heads=4),
    decoder=dict(width=64, depth=1, heads=4),
    mask_ratio=0.75,
    norm_pix_loss=False,
    initialization="xavier",
    dtype="float32",
  )
  config.optimizer = dict(
    name="adamw",
    learning_rate=5e-3,
    warmup_steps=300,
    weight_decay=0.0,
  )
  config.data.train = dict(name="digits", split="train")
  config.data.test = dict(name="digits", split="test")
  transforms = ("to_float", dict(name="normalize", mean=0.3, std=0.37))
  config.data.train_transforms = config.data.test_transforms = transforms
  config.data.num_threads = 1
  config.log_every = 100
  config.checkpoint.every = 600
  config.eval.every = 600
  return config


def fashion_mnist():
  config = recipes.fashion_mnist()
  config.num_steps = 7000
  config.objective = dict(
    name="mae",
    image_size=(28, 28),
    channels=1,
    patch_size=4,
    encoder=dict(width=128, depth=4, heads=2),
    decoder=dict(width=64, depth=1, heads=2),
    mask_ratio=0.75,
    norm_pix_loss=False,
    initialization="xavier",
    dtype="float32",
  )
  config.optimizer = dict(
    name="adamw",
    learning_rate=3e-3,
    warmup_steps=500,
    weight_decay=0.05,
  )
  config.eval.probes = ("knn", "linear", "lars", "plain")
  return config


def small():
  config = fashion_mnist()
  config.num_steps = 3000
  config.optimizer.warmup_steps = 200
  config.objective.encoder.width = 64
  config.eval.probes = ("knn", "linear", "plain")
  return config


def imagenet():
  config = recipes.imagenet_vit(
    epochs=800,
    warmup_epochs=40,
    batch_size=4096,
    state_dtype="float32",  # or "bfloat16"
    learning_rate=1.5e-4,
    base_batch=256,
    b1=0.9,
    b2=0.95,
    weight_decay=0.05,
  )
  config.objective.update(
    name="mae",
    encoder=dict(size="L"),
    decoder=dict(width=512, depth=8, heads=16),
    mask_ratio=0.75,
    norm_pix_loss=True,
  )
  return config


def imagenet_2b():
  config = imagenet()
  config.objective.encoder = dict(width=2048, depth=40, heads=16)
  config.objective.scan = True
  config.objective.remat = "full"
  config.mesh = dict(data=1, fsdp=-1, tensor=1)
  return config
