"""ExLM (arXiv:2501.13397): each mask token as four states, tied by transitions.

small: Python's reference, see maskjax/recipes.py; on two CPU cores.
  maskjax train --config configs/text/exlm.py:small --workdir runs/exlm_small

paper: the base model, 23,000 batches of 4,096 rows of 128 tokens.
  maskjax train --config configs/text/exlm.py:paper --workdir DIR
"""

from maskjax import config as configs
from maskjax import recipes


def get_config(setting=None):
  return configs.setting(setting, {"small": small, "paper": paper})


def small():
  config = recipes.small_text(name="exlm", mask_ratio=0.15, states=2)
  config.num_steps = 1200  # which states say what has to be found out first
  return config


def paper():
  config = recipes.packed_text()
  config.batch_size = 4096
  config.num_steps = 23_000
  config.objective = dict(
    name="exlm",
    vocab_size=50265,
    pad_id=1,
    mask_id=50264,
    special_ids=(0, 1, 2, 3, 50264),
    length=128,
    encoder=dict(size="B"),
    states=4,
    mask="tokens",
    mask_ratio=0.15,
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
