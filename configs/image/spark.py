"""SparK (arXiv:2301.03580).

small: Fashion-MNIST, see maskjax/recipes.
  maskjax train --config configs/image/spark.py:small --workdir runs/spark_small
  As in the paper, the masked units are as wide as the encoder's stride, here 4 pixels:
  a ResNet of two stages on 14x14 and 7x7 positions.
small_convnext: images of 32x32 pixels in units of 8, and a ConvNeXt; not measured.

imagenet: the paper's ResNet-50, 1600 epochs.
imagenet_convnext: its ConvNeXt-S, which differs in the optimizer's second moment.
"""

from maskjax import recipes


def small():
  config = recipes.fashion_mnist()
  config.num_steps = 1700
  config.objective = dict(
    name="spark",
    image_size=(28, 28),
    channels=1,
    encoder=dict(
      name="resnet",
      widths=(32, 64),
      depths=(1, 1),
      bottleneck=False,
      stem_stride=2,
      stem_width=16,
    ),
    decoder_width=32,
    mask_ratio=0.6,
    norm_pix_loss=False,
    initialization="xavier",
    dtype="float32",
  )
  config.optimizer = dict(
    name="adamw",
    learning_rate=3e-3,
    warmup_steps=150,
    weight_decay=0.05,
  )
  config.eval.probes = ("knn", "linear", "plain")
  return config


def small_convnext():
  config = small()
  config.num_steps = 1000
  for transforms in ("train_transforms", "test_transforms"):
    config.data[transforms] = (dict(name="resize", size=32), *config.data[transforms])
  config.objective.image_size = (32, 32)
  config.objective.encoder = dict(
    name="convnext", widths=(32, 64), depths=(1, 1), stem_stride=4
  )
  return config


def imagenet():
  config = recipes.imagenet(scale=(0.67, 1.0))
  config.batch_size = 4096
  epoch = recipes.epoch(config, filled_up=True)
  config.num_steps = 1600 * epoch
  config.objective = dict(
    name="spark",
    image_size=224,
    channels=3,
    encoder=dict(size="resnet50", drop_path=0.05),
    decoder_width=768,
    mask_ratio=0.6,
    norm_pix_loss=True,
    dtype="bfloat16",
  )
  config.optimizer = dict(
    name="lamb",
    learning_rate=2e-4 * config.get_ref("batch_size") / 256,
    initial_learning_rate=1e-6 * config.get_ref("batch_size") / 256,
    final_learning_rate=2e-7 * config.get_ref("batch_size") / 256,
    warmup_steps=40 * epoch,
    b1=0.9,
    b2=0.95,
    weight_decay=0.04,
    final_weight_decay=0.2,
    no_decay=r"(bias|scale|embedding_\d)$",
    clip_norm=5.0,
  )
  config.checkpoint.every = 5 * epoch
  config.eval.every = 20 * epoch
  return config


def imagenet_convnext():
  config = imagenet()
  config.objective.encoder = dict(size="convnext_s", drop_path=0.2)
  config.optimizer.b2 = 0.999
  return config
