r"""Finetuning on labeled text: classes of texts, classes of words, answers.

The files are JSON lines, see maskjax/data/labeled.py. The encoder, and the tokenizer,
are those of a run on text, or of imported weights:
  maskjax train --config configs/text/finetune.py:classes --workdir DIR \
    --config.init_from=RUN --config.data.train.tokenizer=RUN/tokenizer.json ...
With another tokenizer than BERT's, --config.objective.vocabulary= reads the numbers of
the vocabulary off the data.

classes, tags: BERT-base, 3 epochs of 10,000 texts in batches of 32.
questions: the same, 2 epochs of 88,000 windows of 384 tokens, as SQuAD has.
"""

from maskjax import config as configs


def classes():
  config = configs.defaults()
  config.batch_size = 32
  config.num_steps = 940
  config.objective = dict(
    name="text_classification",
    num_classes=2,
    vocabulary="bert-base-uncased",
    length=512,
    encoder=dict(kind="bert", size="B"),
    dropout=0.1,
    attention_dropout=0.1,
    dtype="bfloat16",
  )
  config.optimizer = dict(
    name="adamw",
    learning_rate=2e-5,
    warmup_steps=94,
    b2=0.999,
    weight_decay=0.01,
    clip_norm=1.0,
    schedule="linear",
  )
  for split in ("train", "test"):
    config.data[split] = dict(
      name="labeled_text",
      path=f"data/classes/{split}.jsonl",
      tokenizer="data/tokenizer.json",
      length=128,
    )
  config.eval.probes = ()
  return config


def tags():
  config = classes()
  config.objective.update(name="tagging", num_classes=17)
  for split in ("train", "test"):
    config.data[split].update(name="tagged_text", path=f"data/tags/{split}.jsonl")
  return config


def questions():
  config = classes()
  config.num_steps = 5500
  config.objective.name = "span_extraction"
  with config.unlocked():
    del config.objective.num_classes
    config.objective.longest = 30
  config.optimizer.update(learning_rate=3e-5, warmup_steps=550)
  for split in ("train", "test"):
    config.data[split] = dict(
      name="questions",
      path=f"data/questions/{split}.jsonl",
      tokenizer="data/tokenizer.json",
      length=384,
      stride=128,
    )
  return config
