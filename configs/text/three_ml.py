"""3ML (arXiv:2211.04898): half of the tokens masked, mask tokens in the last blocks.

small: Python's reference, see maskjax/recipes.py; on two CPU cores.
  maskjax train --config configs/text/three_ml.py:small --workdir runs/three_ml_small

paper: a RoBERTa-base that normalizes before its branches and two blocks after it,
23,000 batches of 4,096 rows of 128 tokens (the recipe of arXiv:2202.08005).
  maskjax train --config configs/text/three_ml.py:paper --workdir DIR
"""

from maskjax import config as configs
from maskjax import recipes


def get_config(setting=None):
  return configs.setting(setting, {"small": small, "paper": paper})


def small():
  config = recipes.small_text(
    name="three_ml", mask_ratio=0.5, replaced=(0.8, 0.1), decoder_depth=1
  )
  config.num_steps = 1200
  config.objective.encoder.depth = 2  # as many blocks as others, two of them shorter
  return config


def paper():
  config = recipes.packed_text()
  config.batch_size = 4096
  config.num_steps = 23_000
  config.objective = dict(
    name="three_ml",
    vocab_size=50265,
    pad_id=1,
    mask_id=50264,
    special_ids=(0, 1, 2, 3, 50264),
    length=128,
    encoder=dict(kind="roberta", size="B", norm_last=False),
    decoder_depth=2,
    mask="tokens",
    mask_ratio=0.5,
    replaced=(0.8, 0.1),
    dropout=0.1,
    attention_dropout=0.1,
    dtype="bfloat16",
    scan=False,
    remat="none",  # or "dots", "full"
  )
  config.optimizer = dict(
    name="adamw",
    learning_rate=2e-3,
    warmup_steps=1380,
    b1=0.9,
    b2=0.98,
    weight_decay=0.01,
  )
  return config
