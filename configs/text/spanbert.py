"""SpanBERT (arXiv:1907.10529): masked spans, predicted from their boundaries.

small: Python's reference, one document a row, see maskjax/recipes; on two CPU cores.
  maskjax train --config configs/text/spanbert.py:small --workdir runs/spanbert_small

paper: BERT-large on cased text, 2.4 million batches of 256 rows of 512 tokens. The rows
should hold one document each (`pack=False` in the data).
  maskjax train --config configs/text/spanbert.py:paper --workdir DIR
"""

from maskjax import recipes


def small():
  config = recipes.small_text(
    name="spanbert",
    mask=dict(name="spans", p=0.2, longest=10, of="tokens"),  # words have several
    mask_ratio=0.15,
    replaced=(0.8, 0.1),
    place_width=32,
  )
  config.num_steps = 1500  # spans take longer to learn than tokens
  config.data.train.pack = config.data.test.pack = False
  return config


def paper():
  config = recipes.bert_paper(
    length=512,
    batch_size=256,
    num_steps=2_400_000,
    learning_rate=1e-4,
    warmup_steps=10_000,
    b1=0.9,
    b2=0.999,
    epsilon=1e-8,
    weight_decay=0.01,
    no_decay=recipes.NOTHING,
    clip_norm=1.0,
    schedule="linear",
    counts_warmup=True,
  )
  config.objective.update(
    name="spanbert",
    vocabulary="bert-base-cased",
    encoder=dict(kind="bert", size="L"),
    mask=dict(name="spans", p=0.2, longest=10),
    mask_ratio=0.15,
    replaced=(0.8, 0.1),
    place_width=200,
    longest_target=15,
  )
  return config
