"""DupMAE (arXiv:2211.08769): every embedding of a document predicts it.

small: Python's reference, packed, see maskjax/recipes; on two CPU cores.
  maskjax train --config configs/text/dupmae.py:small --workdir DIR

paper: from BERT-base on, batches of 256 rows of 512 tokens, eight times English
Wikipedia and BookCorpus. Set `init_from` to where `maskjax convert` put BERT, or leave
it and train from scratch.
  maskjax train --config configs/text/dupmae.py:paper --workdir DIR
"""

from maskjax import recipes

# The projection of embeddings waits for finetuning.
NO_DECAY = r"(bias|scale|project/kernel)$"


def small():
  config = recipes.small_text(
    name="dupmae",
    documents=4,
    mask="tokens",  # words have several here, each of which is masked by itself
    decoder_masks=32,
    embed_dim=64,
    top_k=64,
  )
  config.optimizer.no_decay = NO_DECAY
  return config


def paper():
  config = recipes.bert_paper(
    length=512,
    batch_size=256,
    num_steps=262_000,  # eight times 8.4 million rows
    learning_rate=1e-4,
    warmup_steps=26_200,
    b1=0.9,
    b2=0.999,
    weight_decay=0.01,
    clip_norm=1.0,
    no_decay=NO_DECAY,
    schedule="linear",
  )
  config.objective.update(
    name="dupmae",
    vocabulary="bert-base-uncased",
    encoder=dict(kind="bert", size="B"),
    mask="whole_words",
    mask_ratio=0.3,
    replaced=(0.8, 0.1),
    decoder_ratio=0.5,
    decoder_masks=256,
    bag_weight=0.1,
    documents=4,  # of a packed row; 1 where rows are single documents
    embed_dim=384,
    top_k=384,
  )
  return config
