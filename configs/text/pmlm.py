"""PMLM (arXiv:2004.11579): all shares of masked tokens alike, for texts in any order.

small: Python's reference, see maskjax/recipes.py; on two CPU cores.
  maskjax train --config configs/text/pmlm.py:small --workdir runs/pmlm_small

paper: BERT-base with absolute positions (u-PMLM-A), rows of 128 tokens, BERT's recipe
otherwise.
  maskjax train --config configs/text/pmlm.py:paper --workdir DIR
"""

from maskjax import config as configs
from maskjax import recipes


def get_config(setting=None):
  return configs.setting(setting, {"small": small, "paper": paper})


def small():
  return recipes.small_text(name="pmlm", highest=1.0, replaced=(0.8, 0.1))


def paper():
  config = recipes.packed_text()
  config.batch_size = 256
  config.num_steps = 1_000_000
  config.objective = dict(
    name="pmlm",
    vocab_size=28996,  # cased
    pad_id=0,
    mask_id=103,
    special_ids=(0, 100, 101, 102, 103),
    length=128,
    encoder=dict(kind="bert", size="B"),
    mask="tokens",
    highest=1.0,
    replaced=(0.8, 0.1),
    dropout=0.1,
    attention_dropout=0.1,
    dtype="bfloat16",
    scan=False,
    remat="none",  # or "dots", "full"
  )
  config.optimizer = dict(
    name="adamw",
    learning_rate=1e-4,
    warmup_steps=10_000,
    b1=0.9,
    b2=0.999,
    weight_decay=0.01,
  )
  return config
