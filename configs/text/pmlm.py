"""PMLM (arXiv:2004.11579): all shares of masked tokens alike, for texts in any order.

small: Python's reference, see maskjax/recipes; on two CPU cores.
  maskjax train --config configs/text/pmlm.py:small --workdir runs/pmlm_small

paper: BERT-base with absolute positions (u-PMLM-A), rows of 128 tokens, BERT's recipe
otherwise.
  maskjax train --config configs/text/pmlm.py:paper --workdir DIR
paper_relative: the same with relative positions (u-PMLM-R).
"""

from maskjax import recipes


def small():
  return recipes.small_text(name="pmlm", highest=1.0, replaced=(0.8, 0.1))


def paper():
  config = recipes.bert_paper(
    length=128,
    batch_size=256,
    num_steps=1_000_000,
    learning_rate=1e-4,
    warmup_steps=10_000,
    b1=0.9,
    b2=0.999,
    epsilon=1e-6,
    weight_decay=0.01,
    clip_norm=1.0,
    schedule="linear",
    counts_warmup=True,
    bias_correction=False,
  )
  config.objective.update(
    name="pmlm",
    vocabulary="bert-base-cased",
    encoder=dict(kind="bert", size="B"),
    mask="tokens",
    highest=1.0,
    replaced=(0.8, 0.1),
    mean="tokens",
  )
  return config


def paper_relative():
  config = paper()
  config.objective.encoder.positions = "waves"
  return config
