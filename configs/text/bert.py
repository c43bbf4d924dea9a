"""BERT (arXiv:1810.04805): masked language modeling, without its second objective.

small: Python's reference, see maskjax/recipes; on two CPU cores.
  maskjax train --config configs/text/bert.py:small --workdir runs/bert_small

paper: BERT-base, a million batches of 256 rows of 512 tokens.
  maskjax train --config configs/text/bert.py:paper --workdir DIR
roberta: RoBERTa-base's recipe (arXiv:1907.11692), half a million of 8,192 rows, cut out
of one stream of text.
modernbert: ModernBERT-base (arXiv:2412.13663), the first of its stages: 1.7 trillion
tokens, 30 % of them masked, in rows of 1,024.
"""

from maskjax import recipes


def small():
  return recipes.small_text(name="bert", mask_ratio=0.15, replaced=(0.8, 0.1))


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
    name="bert",
    vocabulary="bert-base-uncased",
    encoder=dict(kind="bert", size="B"),
    mask="tokens",
    mask_ratio=0.15,
    replaced=(0.8, 0.1),
  )
  return config


def roberta():
  config = paper()
  config.batch_size = 8192
  config.num_steps = 500_000
  config.objective.vocabulary = "roberta-base"
  config.objective.encoder = dict(kind="roberta", size="B")
  config.objective.initialization = "normal"
  config.data.train_transforms = config.data.test_transforms = ("join_documents",)
  config.optimizer.update(
    learning_rate=6e-4,
    warmup_steps=24_000,
    b2=0.98,
    clip_norm=0.0,
    no_decay=recipes.NOTHING,
    counts_warmup=False,
    bias_correction=True,
  )
  return config


def modernbert():
  config = paper()
  config.batch_size = 4608
  config.batch_warmup = (768, 18_165)  # 50 billion tokens
  config.num_steps = 371_872  # 1,719 billion
  config.objective.update(
    vocabulary="modernbert-base",
    length=1024,
    mask_ratio=0.3,
    replaced=(0.8, 0.1),
    dropout=0.0,
    attention_dropout=0.0,
  )
  config.objective.encoder = dict(
    kind="modernbert",
    width=768,
    depth=22,
    heads=12,
    rotary_bases=(10_000.0,),  # longer rows, and a larger base, come later
    attention_output_dropout=0.1,
  )
  config.objective.initialization = "modernbert"
  del config.objective.scan  # its first block differs
  config.optimizer = dict(
    name="stable_adamw",
    learning_rate=8e-4,
    warmup_steps=2763,  # 3 billion tokens
    schedule="constant",
    b1=0.9,
    b2=0.98,
    epsilon=1e-6,
    weight_decay=1e-5,
    fully_decoupled=True,
  )
  return config
