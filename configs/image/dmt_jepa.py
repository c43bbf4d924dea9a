"""DMT-JEPA (arXiv:2405.17995).

small: Fashion-MNIST, see maskjax/recipes; docs/results/image.md has its numbers.
  maskjax train --config configs/image/dmt_jepa.py:small --workdir runs/dmt_jepa_small

imagenet: the paper's recipe, ViT-B/16 for 600 epochs, through TFDS.
  maskjax train --config configs/image/dmt_jepa.py:imagenet --workdir runs/dmt_jepa
"""

from maskjax import recipes


def small():
  config = recipes.small_image(
    num_steps=2300,
    warmup_steps=150,
    b2=0.95,
  )
  config.objective.update(
    name="dmt_jepa",
    predictor=dict(width=64, depth=1, heads=2),
    num_neighbors=4,
    window=3,
    head_depth=1,
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
    epochs=600,
    warmup_epochs=40,
    batch_size=2048,
    initial_learning_rate=2e-4,
    learning_rate=1e-3,
    final_learning_rate=1e-6,
    b2=0.999,
    weight_decay=0.04,
    final_weight_decay=0.4,
    scale=(0.3, 1.0),
    method="bilinear",
  )
  # The authors mirror no images.
  transforms = config.data.train_transforms
  config.data.train_transforms = tuple(t for t in transforms if t != "random_flip")
  config.objective.update(
    name="dmt_jepa",
    encoder=dict(size="B"),
    predictor=dict(width=384, depth=6, heads=12),
    num_neighbors=4,
    window=3,
    head_depth=2,
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
