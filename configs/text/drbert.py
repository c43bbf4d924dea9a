"""DrBERT (arXiv:2401.15861): BERT with a decoder that comes to trust masked tokens.

small: Python's reference, see maskjax/recipes.py; on two CPU cores.
  maskjax train --config configs/text/drbert.py:small --workdir runs/drbert_small

paper: BERT-base with a decoder of two blocks, BERT's recipe otherwise.
  maskjax train --config configs/text/drbert.py:paper --workdir DIR
"""

from maskjax import config as configs
from maskjax import recipes


def get_config(setting=None):
  return configs.setting(setting, {"small": small, "paper": paper})


def small():
  return recipes.small_text(
    name="drbert",
    mask_ratio=0.15,
    replaced=(0.8, 0.1),
    unmasked=(0.5, 1.0),
    unrefined=0.5,
  )


def paper():
  config = recipes.packed_text()
  config.batch_size = 256
  config.num_steps = 1_000_000
  config.objective = dict(
    name="drbert",
    vocab_size=30522,
    pad_id=0,
    mask_id=103,
    special_ids=(0, 100, 101, 102, 103),
    length=512,
    encoder=dict(kind="bert", size="B"),
    unmasked=(0.5, 1.0),
    unrefined=0.5,
    mask="tokens",
    mask_ratio=0.15,
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
