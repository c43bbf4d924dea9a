r"""Finetuning of what the other configs of images pretrain: classifiers of images.

`init_from` names a run, whose own system, and so its encoder, is finetuned; without it
the setting's system is trained from scratch. What was taken of the run, what was left
and what is new is printed.

digits: a minute on two CPU cores.
  maskjax train --config configs/image/finetune.py:digits \
    --config.init_from=runs/mae_digits --workdir runs/finetune_digits
  35 s: 99.4 % of the held-out digits; 95.6 % from scratch (without `init_from`).
fashion_mnist: likewise, of configs/image/mae.py:fashion_mnist.
small, small_relative, small_learned, small_swin, small_resnet, small_convnext: one for
  each kind of encoder, for runs of the configs that they name, with one budget, at most
  five minutes on two cores. `python benchmarks/finetuning.py` pretrains and finetunes
  them all.

mae_b, mae_l, hpm, dbot, maskalign, dmae, crossmae, localmim, beit_v2, cae, simmim,
simmim_swin, spark, spark_convnext: the papers' settings on ImageNet-1k, ViT-B/16 where
no other encoder is named, through TFDS, each for a run of the setting that it names:
  maskjax train --config configs/image/mae.py:imagenet --workdir runs/mae
  maskjax train --config configs/image/finetune.py:mae_l \
    --config.init_from=runs/mae --workdir runs/mae_finetuned
What differs from the authors' code, on purpose: the learned positions of MAE and those
after it are of patches alone, since that of the class token is part of the token; the
rates of SimMIM's lower layers begin and end at their share of 1e-6, and not at 1e-6; in
the batches of SparK's ConvNeXt an image stands once, and not three times; mixup or
CutMix, and the share, are drawn once for a whole batch or microbatch, and not for the
images of each GPU, which are 32 of MAE's and 128 of SimMIM's.
"""

from maskjax import config as configs
from maskjax import recipes

# What timm makes of "rand-m9-mstd0.5-inc1" and ImageNet's mean color.
RAND_AUGMENT = dict(
  name="rand_augment", magnitude=9.0, magnitude_std=0.5, fill=(124, 116, 104)
)
NO_DECAY = r"(bias|scale|cls|positions)$"


def finetuned(spec, num_classes, **recipe):
  """The data and the system of a pretraining config, and a classifier."""
  pretraining = configs.load(spec)
  config = configs.defaults()
  config.data = pretraining.data
  config.objective = dict(
    name="classification",
    num_classes=num_classes,
    system=pretraining.objective,
    **recipe,
  )
  config.eval.probes = ()
  return config


def digits():
  config = finetuned(
    "configs/image/mae.py:digits",
    10,
    drop_path=0.1,
    label_smoothing=0.1,
    mixup_alpha=0.0,
    cutmix_alpha=0.0,
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


def fashion_mnist(spec="configs/image/mae.py:fashion_mnist"):
  config = finetuned(
    spec,
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


def small(spec="configs/image/mae.py:small"):
  config = fashion_mnist(spec)
  config.num_steps = 800
  config.objective.update(mixup_alpha=0.0, cutmix_alpha=0.0)
  return config


def small_relative():
  config = small("configs/image/ccvit.py:small")
  config.objective.block_bias = True
  return config


def small_learned():
  return small("configs/image/maskfeat.py:small")


def small_swin():
  return small("configs/image/simmim.py:small_swin")


def small_resnet():
  return small("configs/image/spark.py:small")


def small_convnext():
  return small("configs/image/spark.py:small_convnext")


def imagenet(
  spec,
  *,
  epochs,
  warmup_epochs,
  batch_size,
  learning_rate,
  base_batch=None,
  final_learning_rate=1e-6,
  share=None,
  no_decay=NO_DECAY,
  augment=RAND_AUGMENT,
  name="adamw",
  weight_decay=0.05,
  optimizer=None,
  **recipe,
):
  """A paper's finetuning on ImageNet-1k; counts of epochs follow `batch_size`.

  Args:
    spec: the pretraining setting.
    epochs: of training.
    warmup_epochs: in which the learning rate rises; it falls along a cosine after them.
    batch_size: images of a batch.
    learning_rate: the highest; for a batch of `base_batch` images, and proportional to
      `batch_size`, where that is given.
    base_batch: None for a learning rate that does not depend on `batch_size`.
    final_learning_rate: in the end; the first is 0.
    share: of the highest rate, the first and the last one; instead of these.
    no_decay: which parameters do not decay.
    augment: random change of an image.
    name: of the optimizer.
    weight_decay: of the optimizer.
    optimizer: further keywords of it.
    **recipe: of the classifier.
  """
  config = finetuned(spec, 1000, **recipe)
  config.data = recipes.imagenet().data
  config.batch_size = batch_size
  scale = config.get_ref("batch_size") / base_batch if base_batch else 1
  epoch = recipes.epoch(config)
  config.num_steps = epochs * epoch
  rate = learning_rate * scale
  first, last = (share[0] * rate, share[1] * rate) if share else (0.0, None)
  config.optimizer = dict(
    name=name,
    learning_rate=rate,
    initial_learning_rate=first,
    final_learning_rate=final_learning_rate if last is None else last,
    warmup_steps=warmup_epochs * epoch,
    b1=0.9,
    b2=0.999,
    weight_decay=weight_decay,
    no_decay=no_decay,
    **(optimizer or {}),
  )
  _, _, *rest = config.data.train_transforms
  config.data.train_transforms = (
    dict(name="random_resized_crop", size=224),
    "random_flip",
    augment,
    *rest,
    dict(name="random_erasing", prob=0.25),
  )
  config.log_every = 100
  config.checkpoint.every = 5 * epoch
  config.eval.every = epoch
  config.eval.batch_size = 1024
  return config


def like_mae(spec, *, layer_decay, clip_norm=0.0, **settings):
  """MAE's recipe, and that of the systems that finetune by its code."""
  return imagenet(
    spec,
    **{
      "epochs": 100,
      "warmup_epochs": 5,
      "batch_size": 1024,
      "base_batch": 256,
      "drop_path": 0.1,
      "positions": "learned_sincos",
      "norm": "new",
      "optimizer": dict(layer_decay=layer_decay, clip_norm=clip_norm),
      **settings,
    },
  )


def mae_b():
  config = like_mae(
    "configs/image/mae.py:imagenet", learning_rate=5e-4, layer_decay=0.65
  )
  config.objective.system.encoder = dict(size="B")
  return config


def mae_l():
  return like_mae(
    "configs/image/mae.py:imagenet",
    epochs=50,
    learning_rate=1e-3,
    layer_decay=0.75,
    drop_path=0.2,
  )


def hpm():
  return like_mae(
    "configs/image/hpm.py:imagenet",
    batch_size=384,
    learning_rate=5e-4,
    layer_decay=0.8,
  )


def dbot():
  return like_mae(
    "configs/image/dbot.py:imagenet",
    learning_rate=3e-4,
    layer_decay=0.65,
    head_std=0.01,
  )


def maskalign():
  return like_mae(
    "configs/image/maskalign.py:imagenet",
    learning_rate=3e-4,
    layer_decay=0.55,
    drop_path=0.2,
  )


def dmae():
  return like_mae(
    "configs/image/dmae.py:imagenet",
    warmup_epochs=20,
    learning_rate=5e-4,
    layer_decay=0.75,
    drop_path=0.15,
  )


def crossmae():
  return like_mae(
    "configs/image/crossmae.py:imagenet", learning_rate=5e-4, layer_decay=0.65
  )


def localmim():
  return like_mae(
    "configs/image/localmim.py:imagenet",
    warmup_epochs=20,
    learning_rate=2e-3,
    base_batch=None,
    final_learning_rate=1e-5,
    layer_decay=0.65,
  )


def beit_v2():
  return imagenet(
    "configs/image/beit_v2.py:imagenet",
    epochs=100,
    warmup_epochs=20,
    batch_size=1024,
    learning_rate=5e-4,
    drop_path=0.2,  # 0.1 after 300 epochs
    block_bias=True,
    norm="new",
    optimizer=dict(layer_decay=0.6),  # 0.65 after 300 epochs
  )


def cae():
  return imagenet(
    "configs/image/cae.py:imagenet",
    epochs=100,
    warmup_epochs=5,
    batch_size=4096,
    learning_rate=8e-3,
    drop_path=0.1,
    block_bias=True,
    norm="moved",
    optimizer=dict(layer_decay=0.65),
  )


def simmim():
  return imagenet(
    "configs/image/simmim.py:imagenet",
    epochs=100,
    warmup_epochs=20,
    batch_size=2048,
    learning_rate=1.25e-3,
    base_batch=512,
    share=(2e-4, 2e-4),
    drop_path=0.1,
    block_bias=True,
    norm="new",
    optimizer=dict(layer_decay=0.65, clip_norm=5.0, counts_warmup=True),
  )


def simmim_swin():
  config = simmim()
  swin = configs.load("configs/image/simmim.py:imagenet_swin").objective
  config.objective = dict(
    name="classification",
    num_classes=1000,
    system=swin,
    image_size=224,
    window=7,
    drop_path=0.1,
    norm="own",
    head_std=0.02,
  )
  config.optimizer.update(layer_decay=0.8, no_decay=r"(bias|scale|table)$")
  return config


def spark():
  config = imagenet(
    "configs/image/spark.py:imagenet",
    name="lamb",
    epochs=300,
    warmup_epochs=5,
    batch_size=2048,
    learning_rate=2e-3,
    base_batch=256,
    share=(0.005, 0.001),
    weight_decay=0.02,
    augment="trivial_augment",
    drop_path=0.05,
    error="sigmoid",
    norm="none",
    head_std=None,
    mixup_alpha=0.1,
    optimizer=dict(
      layer_decay=0.7,
      layer_blocks=(3, 2, 3, 3),
      bias_correction=False,
      scale_all=True,
    ),
  )
  return like_spark(config)


def spark_convnext():
  config = imagenet(
    "configs/image/spark.py:imagenet_convnext",
    epochs=400,
    warmup_epochs=20,
    batch_size=4096,
    learning_rate=2e-4,
    base_batch=256,
    share=(0.005, 0.001),
    weight_decay=0.01,
    augment="trivial_augment",
    drop_path=0.3,
    norm="new",
    head_std=0.02,
    optimizer=dict(layer_decay=0.7, layer_blocks=(3, 3, 3, 3)),
  )
  return like_spark(config)


def like_spark(config):
  """An average of the parameters, and larger crops of held-out images."""
  config.ema_decay = 0.9999
  _, *rest = config.data.test_transforms
  config.data.test_transforms = (dict(name="resize", size=235), *rest)
  return config
