"""StructFormer (arXiv:2310.20589): attention along the tree that a parser induces.

small: Python's reference, see maskjax/recipes; on two CPU cores.
  maskjax train --config configs/text/structformer.py:small --workdir runs/struct_small

paper: twelve blocks, the parser before the first of them (variant s1), rows of 512
tokens.
  maskjax train --config configs/text/structformer.py:paper --workdir DIR
middle: four blocks before the parser, and eight after it (variant s2).
"""

from maskjax import recipes


def small():
  config = recipes.small_text(
    name="structformer", mask_ratio=0.3, replaced=(1.0, 0.0), parser_depth=2
  )
  config.num_steps = 800  # each takes more than twice as long as BERT's
  return config


def paper():
  config = recipes.bert_paper(
    length=512,
    batch_size=96,
    num_steps=62_000,
    learning_rate=3e-4,
    warmup_steps=0,
    b1=0.9,
    b2=0.999,
    epsilon=1e-9,
    weight_decay=1.2e-6,
    no_decay=r"(?!)",  # all parameters decay
    clip_norm=0.25,
  )
  del config.objective.scan  # its blocks are made one by one
  config.objective.update(
    name="structformer",
    vocab_size=32000,
    encoder=dict(size="B"),
    context_depth=0,
    parser_depth=4,
    conv_size=9,
    shared_margin=True,
    mask="tokens",
    mask_ratio=0.3,
    replaced=(1.0, 0.0),
  )
  return config


def middle():
  config = paper()
  config.objective.context_depth = 4
  return config
