"""Finetuning of what `configs/image/mae.py` pretrains, by the recipe of MAE's table 9.

digits, fashion_mnist: on two CPU cores, for example
  maskjax train --config configs/image/finetune.py:digits \
    --config.init_from=runs/mae_digits --workdir runs/finetune_digits
  32 s: 99.2 % of the held-out digits; 95.6 % from scratch (without `init_from`).
imagenet: the paper's ViT-L/16 (arXiv:2111.06377, appendix A), 50 epochs.
"""

from maskjax import config as configs


def like_mae(setting, num_classes, **recipe):
  """The data and the encoder of MAE's own config, as a classifier."""
  mae = configs.load(f"configs/image/mae.py:{setting}")
  config = configs.defaults()
  config.data = mae.data
  kept = ("image_size", "channels", "patch_size", "encoder", "dtype")
  config.objective = dict(
    name="classification",
    num_classes=num_classes,
    **{key: mae.objective[key] for key in kept},
    **recipe,
  )
  config.eval.probes = ()
  return config


def digits():
  config = like_mae(
    "digits", 10, drop_path=0.1, label_smoothing=0.1, mixup_alpha=0.0, cutmix_alpha=0.0
  )
  config.num_steps = 400
  config.batch_size = 128
  config.optimizer = dict(
    name="adamw",
    learning_rate=2e-3,
    warmup_steps=50,
    weight_decay=0.05,
    b2=0.999,
    layer_decay=0.75,
  )
  config.log_every = 100
  config.checkpoint.every = 200
  config.eval.every = 100
  return config


def fashion_mnist():
  config = like_mae(
    "fashion_mnist",
    10,
    drop_path=0.1,
    label_smoothing=0.1,
    mixup_alpha=0.8,
    cutmix_alpha=1.0,
  )
  config.num_steps = 1200
  config.batch_size = 256
  config.optimizer = dict(
    name="adamw",
    learning_rate=2e-3,
    warmup_steps=100,
    weight_decay=0.05,
    b2=0.999,
    layer_decay=0.75,
  )
  config.data.train_transforms = ("random_flip", *config.data.train_transforms)
  config.log_every = 100
  config.checkpoint.every = 400
  config.eval.every = 400
  return config


def imagenet():
  config = like_mae(
    "imagenet",
    1000,
    drop_path=0.2,
    label_smoothing=0.1,
    mixup_alpha=0.8,
    cutmix_alpha=1.0,
  )
  config.batch_size = 1024
  epoch = 1281167 // config.get_ref("batch_size")
  config.num_steps = 50 * epoch
  config.optimizer = dict(
    name="adamw",
    learning_rate=1e-3 * config.get_ref("batch_size") / 256,
    warmup_steps=5 * epoch,
    b1=0.9,
    b2=0.999,
    weight_decay=0.05,
    layer_decay=0.75,
  )
  _, _, *rest = config.data.train_transforms
  config.data.train_transforms = (
    dict(name="random_resized_crop", size=224),
    "random_flip",
    dict(name="rand_augment", magnitude=9.0, magnitude_std=0.5),
    *rest,
  )
  config.log_every = 100
  config.checkpoint.every = 5 * epoch
  config.eval.every = epoch
  config.eval.batch_size = 1024
  return config
