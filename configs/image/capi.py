"""CAPI (arXiv:2502.08769).

small: Fashion-MNIST, see maskjax/recipes; docs/results/image.md has its numbers.
  maskjax train --config configs/image/capi.py:small --workdir runs/capi_small

imagenet: the authors' default_pretrain_config.yaml, ViT-L/14, but on ImageNet-1k,
through TFDS.
  maskjax train --config configs/image/capi.py:imagenet --workdir runs/capi
"""

from maskjax import recipes


def small():
  config = recipes.small_image(
    num_steps=1900,
    warmup_steps=150,
    factors={"clusters/": 0.5, "encoder/embed/": 0.2},
  )
  config.objective.update(
    name="capi",
    predictor=dict(depth=2),
    registers=4,
    teacher=dict(name="ema", decay=0.99, last=1.0),
    mask_ratio=0.65,
    predicted_ratio=0.5,
    num_clusters=128,
    drop_path=0.0,
  )
  return config


def imagenet():
  config = recipes.imagenet(scale=(0.6, 1.0))
  config.batch_size = 16384
  config.num_steps = 500_000
  warmup_steps = 50_000
  # Of the cosines that follow the warm-up, the paper leaves out the last fifth.
  whole = warmup_steps + (config.get_ref("num_steps") - warmup_steps) * 5 // 4
  config.objective = dict(
    name="capi",
    image_size=224,
    channels=3,
    patch_size=14,
    encoder=dict(size="L"),
    predictor=dict(width=1024, depth=12, heads=16),
    registers=16,
    teacher=dict(
      name="ema",
      decay=0.999,
      last=1.0,
      num_steps=whole,
      warmup_steps=warmup_steps,
    ),
    mask_ratio=0.65,
    predicted_ratio=0.05,
    num_clusters=16384,
    drop_path=0.2,
    dtype="bfloat16",
    scan=False,
    remat="none",  # or "dots", "full"
  )
  config.optimizer = dict(
    name="adamw",
    num_steps=whole,
    learning_rate=1e-3,
    warmup_steps=warmup_steps,
    b1=0.9,
    b2=0.95,
    weight_decay=0.1,
    factors={"clusters/": 0.5, "encoder/embed/": 0.2},
    # Clusters have a decay of 0.01, biases included; so have normalizations' scales.
    decay_factors={"clusters/": 0.1, "_norm/scale$": 0.1, "head/scale$": 1.0},
  )
  config.checkpoint.every = 5000
  config.eval.every = 20_000
  config.eval.network = "teacher"  # whose numbers the paper has
  return config
