"""Masking rate schedules (arXiv:2305.15096): from 30 % of the tokens to 15 %.

small: Python's reference, see maskjax/recipes.py; on two CPU cores.
  maskjax train --config configs/text/masking_rate_schedule.py:small --workdir DIR

paper: BERT-base, 70,000 batches of 4,096 rows of 128 tokens, which the paper takes from
C4, by the recipe of MosaicML's BERT that it builds on.
  maskjax train --config configs/text/masking_rate_schedule.py:paper --workdir DIR
"""

from maskjax import config as configs
from maskjax import recipes


def get_config(setting=None):
  return configs.setting(setting, {"small": small, "paper": paper})


def small():
  config = recipes.small_text(
    name="masking_rate_schedule", mask_ratio=(0.3, 0.15), replaced=(0.8, 0.1)
  )
  return config


def paper():
  config = recipes.packed_text()
  config.batch_size = 4096
  config.num_steps = 70_000
  config.objective = dict(
    name="masking_rate_schedule",
    vocab_size=30522,
    pad_id=0,
    mask_id=103,
    special_ids=(0, 100, 101, 102, 103),
    length=128,
    encoder=dict(kind="bert", size="B"),
    mask="tokens",
    mask_ratio=(0.3, 0.15),
    replaced=(0.8, 0.1),
    dropout=0.1,
    attention_dropout=0.1,
    dtype="bfloat16",
    scan=False,
    remat="none",  # or "dots", "full"
  )
  config.optimizer = dict(
    name="adamw",
    learning_rate=5e-4,
    warmup_steps=4200,
    b1=0.9,
    b2=0.98,
    weight_decay=0.02,  # 1e-5 a step, which does not scale with the learning rate
    falls="line",
  )
  return config
