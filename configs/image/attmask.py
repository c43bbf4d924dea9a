"""AttMask (arXiv:2203.12719), in the framework of iBOT (arXiv:2111.07832).

small: Fashion-MNIST, see maskjax/recipes. Patches of 7 pixels; more of them are
  masked, and in all images, where the paper masks none in half of the images. Scores
  are balanced by Sinkhorn iterations: centered by averages, they collapse in so short
  a run.
  maskjax train --config configs/image/attmask.py:small --workdir runs/attmask_small
  Hints, or the patches attended to least:
    --config.objective.mask.mode=hint (or low)

imagenet: the README's AttMask-Hint, ViT-S/16, 100 epochs, through TFDS, with two views
and ten small crops. There it has 72.8 % by nearest neighbors, and AttMask-High 72.5 %,
--config.objective.mask.mode=high.
  maskjax train --config configs/image/attmask.py:imagenet --workdir runs/attmask
"""

from maskjax import recipes


def small():
  config = recipes.small_image(
    patch_size=7,
    image_size=(28, 28),
    num_steps=1500,
    warmup_steps=100,
    weight_decay=0.04,
    clip_norm=3.0,
  )
  config.objective.update(
    name="attmask",
    head=dict(size=256, hidden=128, bottleneck=64, fixed_length=True),
    mask=dict(name="attended", mode="high", low=0.3, high=0.6, prob=1.0),
    teacher=dict(name="ema", decay=0.98, last=1.0),
    teacher_temperature=(0.07, 0.07),
    sinkhorn_steps=3,
    drop_path=0.0,
  )
  # The classes differ in width by height, so that crops must keep it.
  crop = dict(name="random_resized_crop", size=28, scale=(0.6, 1.0), ratio=(0.9, 1.1))
  view = (crop, "random_flip", *config.data.test_transforms)
  config.data.train_transforms = (dict(name="two_views", first=view, second=view),)
  return config


def imagenet():
  config = recipes.imagenet_vit(
    epochs=100,
    warmup_epochs=10,
    batch_size=240,
    learning_rate=5e-4,
    base_batch=256,
    final_learning_rate=1e-6,
    b2=0.999,
    weight_decay=0.04,
    final_weight_decay=0.4,
    no_decay=r"(bias|norm/scale)$",
    clip_each=3.0,
  )
  epoch = recipes.epoch(config)
  config.objective.update(
    name="attmask",
    encoder=dict(size="S"),
    head=dict(size=8192, hidden=2048, bottleneck=256, fixed_length=False),
    mask=dict(name="attended", mode="hint", low=0.1, high=0.5, prob=0.5, show=0.1),
    teacher=dict(name="ema", decay=0.996, last=1.0),
    teacher_temperature=(0.04, 0.07),
    temperature_steps=30 * epoch,
    freeze_steps=epoch,
    drop_path=0.1,
  )
  crop = dict(name="random_resized_crop", size=224, scale=(0.25, 1.0))
  small = dict(name="random_resized_crop", size=96, scale=(0.05, 0.25))
  jitter = dict(name="color_jitter", prob=0.8, saturation=0.2, hue=0.1)
  colors = ("random_flip", jitter, "random_gray")
  always, rarely, often = (
    dict(name="random_blur", prob=prob) for prob in (1.0, 0.1, 0.5)
  )
  to_numbers = config.data.test_transforms[2:]
  config.data.train_transforms = (
    dict(
      name="two_views",
      first=(crop, *colors, always, *to_numbers),
      second=(crop, *colors, rarely, "random_solarize", *to_numbers),
      local=(small, *colors, often, *to_numbers),
      num_local=10,
    ),
  )
  config.eval.network = "teacher"  # whose numbers the paper has
  return config
