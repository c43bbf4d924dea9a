"""Should You Mask 15 %? (arXiv:2202.08005): 40 % of the tokens, all of them masked.

small: Python's reference, see maskjax/recipes; on two CPU cores.
  maskjax train --config configs/text/mask40.py:small --workdir runs/mask40_small

paper: a RoBERTa-large that normalizes before its branches, 23,000 batches of 4,096 rows
of 128 tokens, cut out of one stream of text (the authors' efficient recipe).
  maskjax train --config configs/text/mask40.py:paper --workdir DIR
"""

from maskjax import recipes


def small():
  return recipes.small_text(name="mask40", mask_ratio=0.4, replaced=(1.0, 0.0))


def paper():
  config = recipes.bert_paper(
    length=128,
    batch_size=4096,
    num_steps=23_000,
    learning_rate=2e-3,
    warmup_steps=1380,
    b1=0.9,
    b2=0.98,
    epsilon=1e-6,
    weight_decay=0.01,
    no_decay=recipes.NOTHING,
    schedule="linear",
    join_documents=True,
  )
  config.objective.update(
    name="mask40",
    vocabulary="roberta-base",
    encoder=dict(kind="roberta", size="L", norm_last=False),
    mask="tokens",
    mask_ratio=0.4,
    replaced=(1.0, 0.0),
  )
  return config
