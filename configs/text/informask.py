"""InforMask (arXiv:2210.11771): informative tokens are masked more often.

small: Python's reference, see maskjax/recipes; on two CPU cores.
  maskjax train --config configs/text/informask.py:small --workdir runs/informask_small

paper: RoBERTa-base, 40 epochs of English Wikipedia, of which each article gives a row.
The rows need a `score`: give `maskjax pack` the statistic of `small`, of a sample of
these articles.
  maskjax train --config configs/text/informask.py:paper --workdir DIR
"""

from maskjax import recipes


def small():
  config = recipes.small_text(name="informask", mask_ratio=0.3, replaced=(1.0, 0.0))
  statistic = dict(
    name="informative_rates",
    training=dict(name="python_reference", split="train"),
    mask_ratio=0.15,
    window=11,
    candidates=30,
    passes=5,
  )
  config.data.train.statistic = config.data.test.statistic = statistic
  return config


def paper():
  config = recipes.bert_paper(
    length=512,
    batch_size=256,
    num_steps=1_000_000,
    learning_rate=5e-5,
    warmup_steps=0,
    b1=0.9,
    b2=0.999,
    weight_decay=0.0,
    clip_norm=1.0,
    schedule="linear",
  )
  config.objective.update(
    name="informask",
    vocabulary="bert-base-uncased",
    encoder=dict(kind="roberta", size="B", types=2, norm_epsilon=1e-12),
    mask_ratio=0.3,
    replaced=(1.0, 0.0),
    everywhere=True,
  )
  return config
