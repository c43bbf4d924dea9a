"""Masking rate schedules (arXiv:2305.15096): from 30 % of the tokens to 15 %.

small: Python's reference, see maskjax/recipes; on two CPU cores.
  maskjax train --config configs/text/masking_rate_schedule.py:small --workdir DIR

paper: BERT-base, 70,000 batches of 4,096 rows of 128 tokens, which the paper takes from
C4, by the recipe of MosaicML's BERT that it builds on.
  maskjax train --config configs/text/masking_rate_schedule.py:paper --workdir DIR
"""

from maskjax import recipes


def small():
  config = recipes.small_text(
    name="masking_rate_schedule", mask_ratio=(0.3, 0.15), replaced=(0.8, 0.1)
  )
  return config


def paper():
  config = recipes.bert_paper(
    length=128,
    batch_size=4096,
    num_steps=70_000,
    learning_rate=5e-4,
    warmup_steps=4200,
    b1=0.9,
    b2=0.98,
    epsilon=1e-6,
    weight_decay=1e-5,
    fully_decoupled=True,
    no_decay=recipes.NOTHING,
    schedule="linear",
    final_learning_rate=1e-5,
  )
  config.objective.update(
    name="masking_rate_schedule",
    vocabulary="bert-base-uncased",
    encoder=dict(kind="bert", size="B"),
    mask="tokens",
    mask_ratio=(0.3, 0.15),
    replaced=(0.8, 0.1),
  )
  return config
