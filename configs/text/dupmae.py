"""DupMAE (arXiv:2211.08769): all codes of a document have to tell it.

small: Python's reference, packed, see maskjax/recipes.py; on two CPU cores.
  maskjax train --config configs/text/dupmae.py:small --workdir DIR

paper: from BERT-base on, batches of 256 rows of 512 tokens, eight times English
Wikipedia and BookCorpus. Set `init_from` to where `maskjax convert` put BERT, or leave
it and begin anew.
  maskjax train --config configs/text/dupmae.py:paper --workdir DIR
"""

from maskjax import config as configs
from maskjax import recipes

# The projection of embeddings waits for finetuning.
NO_DECAY = r"(bias|scale|project/kernel)$"


def get_config(setting=None):
  return configs.setting(setting, {"small": small, "paper": paper})


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
  config = recipes.packed_text()
  config.batch_size = 256
  config.num_steps = 262_000  # eight times 8.4 million rows
  config.objective = dict(
    name="dupmae",
    vocab_size=30522,
    pad_id=0,
    mask_id=103,
    special_ids=(0, 100, 101, 102, 103),
    length=512,
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
    dropout=0.1,
    attention_dropout=0.1,
    dtype="bfloat16",
    scan=False,
    remat="none",  # or "dots", "full"
  )
  config.optimizer = dict(
    name="adamw",
    learning_rate=1e-4,
    warmup_steps=26_200,
    b1=0.9,
    b2=0.999,
    weight_decay=0.01,
    no_decay=NO_DECAY,
    falls="line",
  )
  return config
