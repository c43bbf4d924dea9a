"""Difference-Masking (arXiv:2305.14577): masks what sets a domain apart.

small: Python's reference, see maskjax/recipes, set apart from the docstrings of
Python's library; on two CPU cores.
  maskjax train --config configs/text/difference_masking.py:small --workdir DIR

paper: goes on training RoBERTa-base on ChemProt's 4,169 texts, 150 epochs. Give it
these, texts like those that RoBERTa was trained on, and a run that `maskjax convert`
made.
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
  config.num_steps = 1220
  config.init_from = "runs/roberta"

  def domain(split):
    return dict(name="text_files", root=f"data/chemprot/{split}.txt", each="line")

  config.data.train = dict(
    name="text",
    documents=domain("train"),
    tokenizer="runs/roberta",
    length=512,
    pack=False,
    statistic=dict(
      name="anchor_similarity",
      training=domain("train"),
      reference=dict(name="text_files", root="data/english"),
      anchors=20,
      vectors="runs/roberta/tokens.npy",  # the table of its tokens
    ),
  )
  config.data.test = config.data.train.copy_and_resolve_references()
  config.data.test.documents = domain("test")
  config.eval.probes = ()
  config.objective = dict(
    name="difference_masking",
    vocabulary="roberta-base",
    length=512,
    encoder=dict(kind="roberta", size="B"),
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
    warmup_steps=73,
    b1=0.9,
    b2=0.98,
    weight_decay=0.01,
    schedule="linear",
  )
  return config
