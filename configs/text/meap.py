"""MEAP (arXiv:2502.07490): the next token, 15 % of what is read masked.

small: Python's reference, see maskjax/recipes; on two CPU cores.
  maskjax train --config configs/text/meap.py:small --workdir runs/meap_small

paper: a Llama of 1.18 billion parameters, 190,000 batches of 256 rows of 4,096 tokens.
  maskjax train --config configs/text/meap.py:paper --workdir DIR
"""

from maskjax import recipes


def small():
  config = recipes.small_text(name="meap", mask_ratio=0.15)
  config.objective.encoder = dict(kind="llama", width=128, depth=3, heads=4)
  return config


def paper():
  config = recipes.packed_text()
  config.batch_size = 256
  config.num_steps = 190_000
  config.objective = dict(
    name="meap",
    vocab_size=32064,
    length=4096,
    encoder=dict(kind="llama", width=2048, depth=24, heads=32, key_heads=2, norm="rms"),
    mask="tokens",
    mask_ratio=0.15,
    dropout=0.0,
    dtype="bfloat16",
    scan=False,
    remat="none",  # or "dots", "full"
  )
  config.optimizer = dict(
    name="adamw",
    learning_rate=4e-4,
    final_learning_rate=4e-5,
    warmup_steps=19_000,
    b1=0.9,
    b2=0.95,
    weight_decay=0.05,
    no_decay=r"(?!)",  # all parameters decay
    clip_norm=1.0,
  )
  return config
