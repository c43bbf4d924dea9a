"""ERNIE-Gram (arXiv:2010.12148): n-grams masked, and predicted, as units.

small: Python's reference, see maskjax/recipes; on two CPU cores.
  maskjax train --config configs/text/ernie_gram.py:small --workdir DIR

paper: BERT-base, a million batches of 256 rows of 512 tokens, 300,000 n-grams. Set
`data.train` and `data.test` to text whose `statistic` is "ngrams", as in small.
  maskjax train --config configs/text/ernie_gram.py:paper --workdir DIR
"""

from maskjax import recipes


def small():
  config = recipes.small_text(name="ernie_gram", num_ngrams=1500, longest=8)
  config.num_steps = 750  # each takes more than twice as long as BERT's
  statistic = dict(
    name="ngrams",
    training=config.data.train.documents.to_dict(),
    bigrams=1000,
    trigrams=500,
    longest=8,
  )
  config.data.train.statistic = dict(statistic)
  config.data.test.statistic = dict(statistic)
  return config


def paper():
  config = recipes.bert_paper(
    length=512,
    batch_size=256,
    num_steps=1_000_000,
    learning_rate=1e-4,
    warmup_steps=10_000,
    b1=0.9,
    b2=0.98,
    epsilon=1e-6,
    weight_decay=0.01,
    clip_norm=1.0,
    schedule="linear",
  )
  config.objective.update(
    name="ernie_gram",
    vocabulary="bert-base-uncased",
    num_ngrams=300_000,
    longest=6,
    encoder=dict(kind="bert", size="B"),
    mask="ngrams",
    mask_ratio=0.15,
    plausible=0.5,
    generator_depth=3,
    detection_weight=1.0,
  )
  return config
