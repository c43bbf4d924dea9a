"""MSLM (arXiv:2403.18025): terms of a domain are masked, and weigh more.

small: Python's reference, see maskjax/recipes; its terms are the words that the
docstrings of Python's library have not. On two CPU cores.
  maskjax train --config configs/text/mslm.py:small --workdir runs/mslm_small

paper: goes on training BioBERT on 5,000 sentences on diseases, 20 epochs. Give it the
documents, one sentence a line, a list of terms, and a run that `maskjax convert` made.
  maskjax train --config configs/text/mslm.py:paper --workdir DIR
"""

from maskjax import config as configs
from maskjax import recipes


def small():
  config = recipes.small_text(
    name="mslm",
    term_ratio=0.25,
    word_ratio=0.15,
    mask_ratio=0.3,
    replaced=(1.0, 0.0),
  )
  statistic = dict(
    name="terms",
    training=dict(name="python_reference", split="train"),
    reference="python_docstrings",
    count=200,
  )
  config.data.train.statistic = config.data.test.statistic = statistic
  return config


def paper():
  config = configs.defaults()
  config.batch_size = 8
  config.num_steps = 13_560
  config.init_from = "runs/biobert"
  root = "data/ncbi_disease"
  config.data.train = dict(
    name="text",
    documents=dict(name="text_files", root=f"{root}/train.txt", each="line"),
    tokenizer="runs/biobert",
    length=256,
    pack=False,
    statistic=dict(name="terms", terms=f"{root}/terms.txt"),
  )
  config.data.test = config.data.train.copy_and_resolve_references()
  config.data.test.documents.root = f"{root}/test.txt"
  config.eval.probes = ()
  config.objective = dict(
    name="mslm",
    vocabulary="bert-base-cased",
    length=512,
    encoder=dict(kind="bert", size="B"),
    term_ratio=0.25,
    word_ratio=0.15,
    mask_ratio=0.3,
    replaced=(1.0, 0.0),
    dropout=0.1,
    attention_dropout=0.1,
    dtype="bfloat16",
    scan=False,
    remat="none",  # or "dots", "full"
  )
  config.optimizer = dict(
    name="adamw",
    learning_rate=5e-5,
    warmup_steps=0,
    b1=0.9,
    b2=0.999,
    weight_decay=0.01,
    no_decay=r"(?!)",  # all parameters decay
    schedule="linear",
  )
  return config
