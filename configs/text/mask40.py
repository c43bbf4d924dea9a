"""Should You Mask 15 %? (arXiv:2202.08005): 40 % of the tokens, all of them masked.

small: Python's reference, see maskjax/recipes.py; on two CPU cores.
  maskjax train --config configs/text/mask40.py:small --workdir runs/mask40_small

paper: a BERT-large that normalizes before its branches, 23,000 batches of 4,096 rows of
128 tokens (the paper's efficient recipe, appendix A).
  maskjax train --config configs/text/mask40.py:paper --workdir DIR
"""

from maskjax import config as configs
from maskjax import recipes


def get_config(setting=None):
  return configs.setting(setting, {"small": small, "paper": paper})


def small():
  return recipes.small_text(name="mask40", mask_ratio=0.4, replaced=(1.0, 0.0))


def paper():
  config = recipes.packed_text()
  config.batch_size = 4096
  config.num_steps = 23_000
  config.objective = dict(
    name="mask40",
    vocab_size=30522,
    pad_id=0,
    mask_id=103,
    special_ids=(0, 100, 101, 102, 103),
    length=128,
    encoder=dict(kind="bert", size="L", norm_last=False),
    mask="tokens",
    mask_ratio=0.4,
    replaced=(1.0, 0.0),
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
    falls="line",
  )
  return config
