"""Bag-of-word prediction (arXiv:2401.11248): the first token predicts all words.

small: Python's reference, packed, see maskjax/recipes; on two CPU cores.
  maskjax train --config configs/text/bow_pretrain.py:small --workdir DIR

paper: from BERT-base on, 140,000 batches of 2,048 rows of 512 tokens. Set `init_from`
to where `maskjax convert` put BERT, or leave it and train from scratch.
  maskjax train --config configs/text/bow_pretrain.py:paper --workdir DIR
"""

from maskjax import recipes


def small():
  # Words have several tokens here, each of which is masked by itself.
  config = recipes.small_text(name="bow_pretrain", documents=4, mask="tokens")
  return config


def paper():
  config = recipes.bert_paper(
    length=512,
    batch_size=2048,
    num_steps=140_000,
    learning_rate=3e-4,
    final_learning_rate=3e-5,
    warmup_steps=4000,
    b1=0.9,
    b2=0.999,
    weight_decay=0.01,
    clip_norm=1.0,
  )
  config.objective.update(
    name="bow_pretrain",
    vocabulary="bert-base-uncased",
    encoder=dict(kind="bert", size="B"),
    mask="whole_words",
    mask_ratio=0.3,
    replaced=(0.8, 0.1),
    documents=4,  # of a packed row; 1 where rows are single documents
    last_weight=0.1,
  )
  return config
