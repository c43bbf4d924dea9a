"""Difference-Masking (arXiv:2305.14577): masks what sets a domain apart.

small: Python's reference, see maskjax/recipes, set apart from the docstrings of
Python's library; on two CPU cores.
  maskjax train --config configs/text/difference_masking.py:small --workdir DIR

paper: goes on training RoBERTa-base on ChemProt's 4,169 texts, 150 epochs, and learns
their 13 classes beside. Give it these as JSON lines with `text` and `label`, a number,
and as plain lines; texts like those that RoBERTa was trained on; a run that `maskjax
convert` made; and bert-base-uncased as it is downloaded, for the similarity of words.
  maskjax train --config configs/text/difference_masking.py:paper --workdir DIR
"""

from maskjax import config as configs
from maskjax import recipes


def small():
  config = recipes.small_text(
    name="difference_masking", mask_ratio=0.15, replaced=(0.8, 0.1)
  )
  statistic = dict(
    name="anchor_similarity",
    training=dict(name="python_reference", split="train"),
    reference="python_docstrings",
    anchors=20,
  )
  config.data.train.statistic = config.data.test.statistic = statistic
  return config


def paper():
  config = configs.defaults()
  config.batch_size = 512
  config.num_steps = 1200
  config.init_from = "runs/roberta"

  config.data.train = dict(
    name="labeled_text",
    path="data/chemprot/train.jsonl",
    tokenizer="runs/roberta",
    length=512,
    statistic=dict(
      name="anchor_similarity",
      training=dict(name="text_files", root="data/chemprot/train.txt", each="line"),
      reference=dict(name="text_files", root="data/english"),
      anchors=20,
      vectors=dict(
        name="maskjax.convert.pooled:pooled_words", folder="data/bert-base-uncased"
      ),
    ),
  )
  config.data.test = config.data.train.copy_and_resolve_references()
  config.data.test.path = "data/chemprot/test.jsonl"
  config.eval.probes = ()
  config.objective = dict(
    name="difference_masking",
    vocabulary="roberta-base",
    length=512,
    encoder=dict(kind="roberta", size="B"),
    mask_ratio=0.15,
    replaced=(0.8, 0.1),
    num_classes=13,
    class_weight=0.5,
    class_dropout=0.3,
    dropout=0.1,
    attention_dropout=0.1,
    dtype="bfloat16",
    scan=False,
    remat="none",  # or "dots", "full"
  )
  config.optimizer = dict(
    name="adamw",
    learning_rate=1e-4,
    warmup_steps=72,
    b1=0.9,
    b2=0.98,
    epsilon=1e-6,
    weight_decay=0.01,
    clip_norm=1.0,
    schedule="linear",
  )
  return config
