"""3ML (arXiv:2211.04898): half of the tokens masked, mask tokens in the last blocks.

small: Python's reference, see maskjax/recipes; on two CPU cores.
  maskjax train --config configs/text/three_ml.py:small --workdir runs/three_ml_small

paper: a RoBERTa-base that normalizes before its branches and two blocks after it,
23,000 batches of 4,096 rows of 128 tokens (the recipe of arXiv:2202.08005).
  maskjax train --config configs/text/three_ml.py:paper --workdir DIR
"""

from maskjax import recipes


def small():
  config = recipes.small_text(
    name="three_ml", mask_ratio=0.5, replaced=(0.8, 0.1), decoder_depth=1
  )
  config.num_steps = 1200
  config.objective.encoder.depth = 2  # as many blocks as others, two of them shorter
  return config


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
    name="three_ml",
    vocabulary="roberta-base",
    encoder=dict(kind="roberta", size="B", norm_last=False),
    decoder_depth=2,
    mask="tokens",
    mask_ratio=0.5,
    replaced=(0.8, 0.1),
  )
  return config
