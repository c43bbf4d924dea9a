"""ExLM (arXiv:2501.13397): each mask token as four states, tied by transitions.

small: Python's reference, see maskjax/recipes; on two CPU cores.
  maskjax train --config configs/text/exlm.py:small --workdir runs/exlm_small

paper: the base model, 23,000 batches of 4,096 rows of 128 tokens.
  maskjax train --config configs/text/exlm.py:paper --workdir DIR
"""

from maskjax import recipes


def small():
  config = recipes.small_text(name="exlm", mask_ratio=0.15, states=2, zero_masks=False)
  config.objective.encoder.norm_embedded = True
  config.num_steps = 1200  # it first has to learn how states are used
  return config


def paper():
  config = recipes.bert_paper(
    length=128,
    batch_size=4096,
    num_steps=23_000,
    learning_rate=2e-3,
    warmup_steps=1380,
    b1=0.9,
    b2=0.98,
    epsilon=1e-6,
    weight_decay=0.01,
    no_decay=recipes.NOTHING,
    schedule="linear",
    join_documents=True,
  )
  config.objective.update(
    name="exlm",
    vocabulary="roberta-base",
    encoder=dict(size="B"),
    states=4,
    zero_masks=False,
    mask="tokens",
    mask_ratio=0.15,
  )
  return config
