"""I-JEPA (arXiv:2301.08243).

small: Fashion-MNIST, see maskjax/recipes; docs/results/image.md has its numbers.
  maskjax train --config configs/image/ijepa.py:small --workdir runs/ijepa_small

imagenet: the authors' in1k_vith14_ep300.yaml, ViT-H/14 for 300 epochs, through TFDS.
(Their paper has 15 epochs of warm-up from a rate of 1e-4.)
  maskjax train --config configs/image/ijepa.py:imagenet --workdir runs/ijepa
"""

from maskjax import recipes


def small():
  config = recipes.small_image(
    num_steps=3000,
    warmup_steps=200,
    b2=0.95,
  )
  config.objective.update(
    name="ijepa",
    predictor=dict(width=64, depth=1, heads=2),
    teacher=dict(
      name="ema",
      decay=0.99,
      last=1.0,
      shape="linear",
    ),
    num_targets=2,
    context_ratio=0.3,
  )
  return config


def imagenet():
  config = recipes.imagenet_vit(
    epochs=300,
    warmup_epochs=40,
    batch_size=2048,
    patch_size=14,
    initial_learning_rate=2e-4,
    learning_rate=1e-3,
    final_learning_rate=1e-6,
    b2=0.999,
    weight_decay=0.04,
    final_weight_decay=0.4,
    scale=(0.3, 1.0),
    method="bilinear",
  )
  # No image is mirrored.
  transforms = config.data.train_transforms
  config.data.train_transforms = tuple(t for t in transforms if t != "random_flip")
  config.objective.update(
    name="ijepa",
    encoder=dict(size="H"),
    predictor=dict(width=384, depth=12, heads=16),
    teacher=dict(
      name="ema",
      decay=0.996,
      last=1.0,
      shape="linear",
    ),
    num_targets=4,
    target_scale=(0.15, 0.2),
    target_aspect=(0.75, 1.5),
    context_scale=(0.85, 1.0),
    context_ratio=0.25,
  )
  config.eval.network = "teacher"  # whose numbers the paper has
  return config
