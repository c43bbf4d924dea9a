"""Time-variant masking (arXiv:2208.10806): a falling ratio, and the hardest classes.

small: Python's reference, see maskjax/recipes.py; the classes of its words are what a
list and their letters tell. On two CPU cores.
  maskjax train --config configs/text/time_variant_masking.py:small --workdir DIR

paper: BERT-large, 200,000 batches of 256 rows of 512 tokens of Wikipedia. The rows need
a `score`: give `maskjax pack` the statistic of `small`, with a `tagger` of one's own.
  maskjax train --config configs/text/time_variant_masking.py:paper --workdir DIR
"""

from maskjax import config as configs
from maskjax import recipes


def get_config(setting=None):
  return configs.setting(setting, {"small": small, "paper": paper})


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
  config = recipes.packed_text()
  config.batch_size = 256
  config.num_steps = 200_000
  config.objective = dict(
    name="time_variant_masking",
    vocab_size=30522,
    pad_id=0,
    mask_id=103,
    special_ids=(0, 100, 101, 102, 103),
    length=512,
    encoder=dict(kind="bert", size="L"),
    mask_ratio=0.15,
    decay="cosine",
    num_classes=17,
    momentum=0.999,
    sharpness=2.0,
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
