"""Time-variant masking (arXiv:2208.10806): a falling ratio, and the hardest classes.

small: Python's reference, see maskjax/recipes; the classes of its words come from a
list and from their letters. On two CPU cores.
  maskjax train --config configs/text/time_variant_masking.py:small --workdir DIR

paper: words of hard classes are masked more often, BERT-large, 200,000 batches of 256
rows of 512 tokens of Wikipedia. The rows need a `score`: give `maskjax pack` the
statistic of `small`, with a `tagger` of one's own.
  maskjax train --config configs/text/time_variant_masking.py:paper --workdir DIR
paper_decay: the falling ratio, without classes, at half the learning rate. The authors
go on from the released BERT-large: name it as `config.init_from`.
"""

from maskjax import recipes


def small():
  config = recipes.small_text(
    name="time_variant_masking",
    mask_ratio=0.15,
    decay="cosine",
    num_classes=17,
    momentum=0.9,
    of="tokens",  # words have several here
    replaced=(0.8, 0.1),
  )
  statistic = dict(name="word_classes", tagger="english")
  config.data.train.statistic = config.data.test.statistic = statistic
  return config


def paper():
  config = recipes.bert_paper(
    length=512,
    batch_size=256,
    num_steps=200_000,
    learning_rate=1e-4,
    warmup_steps=10_000,
    b1=0.9,
    b2=0.999,
    epsilon=1e-8,
    weight_decay=0.01,
    clip_norm=1.0,
    schedule="linear",
  )
  config.objective.update(
    name="time_variant_masking",
    vocabulary="bert-base-uncased",
    encoder=dict(kind="bert", size="L"),
    mask_ratio=0.15,
    decay="none",
    num_classes=17,
    momentum=0.999,
    sharpness=2.0,
    replaced=(0.8, 0.1),
  )
  return config


def paper_decay():
  config = paper()
  config.objective.update(decay="cosine", num_classes=0)
  config.optimizer.learning_rate = 5e-5
  return config
