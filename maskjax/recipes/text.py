"""What the configs of text systems share: data, evaluation, and usual numbers.

A config begins with one of these and adds what is particular to its system.
"""

from typing import Any

from ml_collections import ConfigDict

from maskjax import config as configs

TEXT_ROOT = "data/english"  # rows that `maskjax pack` wrote
# What is exempt from decay where everything decays, as in fairseq: found in no path.
NOTHING = "(?!)"


def python_reference(*, length: int = 128, vocab_size: int = 512) -> ConfigDict:
  """English text that comes with Python: 376,000 characters, a tenth held out.

  Args:
    length: tokens of a row.
    vocab_size: byte pairs that are learned from the training text.
  """
  config = configs.defaults()
  config.batch_size = 32

  def rows(split: str) -> dict[str, Any]:
    learned_from = dict(name="python_reference", split="train")
    return dict(
      name="text",
      documents=dict(name="python_reference", split=split),
      tokenizer=dict(documents=learned_from, size=vocab_size),
      length=length,
    )

  config.data.train, config.data.test = rows("train"), rows("test")
  config.data.num_threads = 1
  config.log_every = 100
  config.checkpoint.every = 1000
  config.eval.batch_size = 32
  config.eval.probes = ()
  return config


def packed_text() -> ConfigDict:
  """English Wikipedia and books, or what else `maskjax pack` wrote to `TEXT_ROOT`.

  Set `data.train.root` and `data.test.root` to where it lies, a folder or a bucket.
  """
  config = configs.defaults()
  config.data.train = dict(name="packed_rows", root=TEXT_ROOT, split="train")
  config.data.test = dict(name="packed_rows", root=TEXT_ROOT, split="test")
  config.data.num_threads = 16
  config.data.prefetch = 8
  config.log_every = 100
  config.checkpoint.every = 5000
  config.eval.every = 5000
  config.eval.batch_size = 1024
  config.eval.probes = ()
  return config


def small_text(**objective: Any) -> ConfigDict:
  """A text system on `python_reference` that trains in minutes on two cores.

  The encoder's positions are rotary: learned ones take longer to learn than the whole
  run lasts. Its vocabulary is that of the data.

  Args:
    **objective: its name, and where it differs from all others.
  """
  config = python_reference()
  config.num_steps = 1000
  config.objective = dict(
    length=128,
    encoder=dict(kind="modernbert", width=128, depth=3, heads=4, windows=(0,)),
    dropout=0.0,
    initialization="xavier",
    dtype="float32",
  )
  config.objective.update(objective)
  config.optimizer = dict(
    name="adamw",
    learning_rate=2e-3,
    warmup_steps=100,
    weight_decay=0.05,
  )
  return config


def bert_paper(
  *,
  length: int,
  batch_size: int,
  num_steps: int,
  learning_rate: float,
  warmup_steps: int,
  join_documents: bool = False,
  **optimizer: Any,
) -> ConfigDict:
  """A paper's pretraining of an encoder on packed English text, in bfloat16.

  A tenth of each branch and of the weights of attention is dropped, as BERT does.

  Args:
    length: tokens of a row.
    batch_size: rows of a batch.
    num_steps: of training.
    learning_rate: of AdamW, the highest.
    warmup_steps: in which it rises; it falls along a cosine after them, or along a line
      with `schedule="linear"`.
    join_documents: let all documents of a row attend to each other, see
      `maskjax.data.transforms.join_documents`.
    **optimizer: further keywords of AdamW.

  Returns:
    A config whose objective lacks its name, vocabulary, encoder and what else is
    particular.

  Example:
    >>> config = bert_paper(
    ...   length=512, batch_size=256, num_steps=1_000_000, learning_rate=1e-4,
    ...   warmup_steps=10_000,
    ... )
    >>> config.objective.update(name="bert", vocabulary="bert-base-uncased")
    >>> config.objective.dropout
    0.1
  """
  config = packed_text()
  if join_documents:
    config.data.train_transforms = config.data.test_transforms = ("join_documents",)
  config.batch_size = batch_size
  config.num_steps = num_steps
  config.objective = dict(
    length=length,
    dropout=0.1,
    attention_dropout=0.1,
    dtype="bfloat16",
    scan=False,
    remat="none",  # or "dots", "full"
  )
  config.optimizer = dict(
    name="adamw",
    learning_rate=learning_rate,
    warmup_steps=warmup_steps,
    **optimizer,
  )
  return config
