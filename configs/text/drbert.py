"""DrBERT (arXiv:2401.15861): BERT with a decoder that comes to trust masked tokens.

small: Python's reference, see maskjax/recipes; on two CPU cores.
  maskjax train --config configs/text/drbert.py:small --workdir runs/drbert_small

paper: BERT-base with a decoder of two blocks, BERT's recipe otherwise.
  maskjax train --config configs/text/drbert.py:paper --workdir DIR
"""

from maskjax import recipes


def small():
  return recipes.small_text(
    name="drbert",
    mask_ratio=0.15,
    replaced=(0.8, 0.1),
    unmasked=(0.5, 1.0),
    unrefined=0.5,
  )


def paper():
  config = recipes.bert_paper(
    length=512,
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
    name="drbert",
    vocabulary="bert-base-uncased",
    encoder=dict(kind="bert", size="B"),
    unmasked=(0.5, 1.0),
    unrefined=0.5,
    mask="tokens",
    mask_ratio=0.15,
    replaced=(0.8, 0.1),
  )
  return config
