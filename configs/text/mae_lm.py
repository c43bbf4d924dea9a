"""MAE-LM (arXiv:2302.02060): no mask tokens in the encoder, a decoder of four blocks.

small: Python's reference, see maskjax/recipes; on two CPU cores.
  maskjax train --config configs/text/mae_lm.py:small --workdir runs/mae_lm_small

paper: the base model, with relative positions in the encoder, 125,000 batches of 2,048
rows of 512 tokens.
  maskjax train --config configs/text/mae_lm.py:paper --workdir DIR
"""

from maskjax import recipes


def small():
  config = recipes.small_text(
    name="mae_lm", mask_ratio=0.3, decoder_depth=1, decoder_dropout=0.0
  )
  config.num_steps = 1200
  config.objective.encoder.depth = 2  # as many blocks as others, two of them shorter
  return config


def paper():
  config = recipes.bert_paper(
    length=512,
    batch_size=2048,
    num_steps=125_000,
    learning_rate=5e-4,
    warmup_steps=10_000,
    b1=0.9,
    b2=0.98,
    epsilon=1e-6,
    weight_decay=0.01,
    no_decay=recipes.NOTHING,
    clip_norm=2.0,
    schedule="linear",
  )
  config.objective.update(
    name="mae_lm",
    vocab_size=32768,
    encoder=dict(
      kind="roberta",
      size="B",
      types=0,
      positions="biased",
      buckets=32,
      farthest=128,
    ),
    decoder_depth=4,
    decoder_dropout=0.0,
    mask="tokens",
    mask_ratio=0.15,
  )
  return config
