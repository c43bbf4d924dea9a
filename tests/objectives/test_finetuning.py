"""Labeled texts, and what is finetuned on them."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.arrays import assert_close, shaken
from helpers.text.rows import source

from maskjax import config as configs
from maskjax import data, experiment, metrics, resolve, runs
from maskjax import workdir as workdirs
from maskjax.data import documents, labeled
from maskjax.errors import UserError
from maskjax.models.text import labels
from maskjax.objectives import (
  Step,
  Variables,
  span_extraction,
  tagging,
  text_classification,
)
from maskjax.tokens import Text

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

SHAPE = dict(vocab_size=300, length=64, encoder=dict(width=8, depth=1, heads=2))
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A tokenizer, and a file of each kind."""
  folder = tmp_path_factory.mktemp("labeled")
  source().vocabulary.save(folder / "tokenizer.json")
  sentences = [
    sentence.strip()
    for text in documents.python_reference(split="test")
    for sentence in re.split(r"(?<=\.)\s+", text.replace("\n", " "))
    if 20 < len(sentence) < 90
  ]
  write(
    folder / "texts.jsonl",
    [{"text": s, "label": int("the" in s.lower().split())} for s in sentences],
  )
  words = [sentence.split() for sentence in sentences]
  write(
    folder / "tags.jsonl",
    [{"words": w, "tags": [int(x[0].isupper()) for x in w]} for w in words],
  )
  questions = [
    {"question": "which word?", "context": s, "answer": w, "start": s.index(w)}
    for s in sentences
    for w in s.split()[-1:]
  ]
  write(folder / "questions.jsonl", [*questions, {**questions[0], "answer": None}])
  return folder


def write(file, rows):
  file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def read(folder, name, file, **options):
  tokenizer = str(folder / "tokenizer.json")
  return getattr(labeled, name)(path=str(folder / file), tokenizer=tokenizer, **options)


def lines(folder, file):
  return [json.loads(line) for line in (folder / file).read_text().splitlines()]


def test_classes_of_texts(folder):
  rows = read(folder, "labeled_text", "texts.jsonl", length=64)
  for i, line in enumerate(lines(folder, "texts.jsonl")[:9]):
    row = rows[i]
    inside = row["token"][row["word"] >= 0]
    assert line["text"].startswith(rows.vocabulary.decode(inside))
    assert row["label"] == line["label"] and set(row["segment"]) <= {0, 1}


def numbers(*, rows, vocabulary):
  return np.float32(rows["token"] + len(vocabulary))


def test_labeled_texts_may_have_scores(folder):
  statistic = f"{__name__}:numbers"
  rows = read(folder, "labeled_text", "texts.jsonl", length=64, statistic=statistic)
  np.testing.assert_array_equal(rows[3]["score"], rows[3]["token"] + 300)


def test_tags_stand_at_first_tokens(folder):
  rows = read(folder, "tagged_text", "tags.jsonl", length=64)
  for i, line in enumerate(lines(folder, "tags.jsonl")[:20]):
    row = rows[i]
    firsts = np.flatnonzero(row["tag"] >= 0)
    assert row["tag"][firsts].tolist() == line["tags"][: len(firsts)]
    numbers = row["word"][firsts]
    assert numbers.tolist() == list(range(len(firsts)))
    assert (row["word"][firsts - 1] != numbers).all()


@pytest.mark.parametrize("length", [40, 100])
def test_answers_start_and_end_at_their_positions(folder, length):
  rows = read(folder, "questions", "questions.jsonl", length=length, stride=10)
  questions, held = lines(folder, "questions.jsonl"), set()
  for i in range(len(rows)):
    row = rows[i]
    line = questions[row["question"]]
    if row["start"]:
      span = row["token"][row["start"] : row["end"] + 1]
      assert line["answer"] in rows.vocabulary.decode(span)
      assert row["kind"][row["start"]] == row["kind"][row["end"]] == 1
      held.add(int(row["question"]))
  assert held == set(range(len(questions) - 1))
  assert (len(rows) > len(questions)) == (length == 40)


@pytest.mark.parametrize("task", ["sequence", "token", "question"])
def test_logits_and_losses_are_those_of_transformers(task):
  """Of the same weights, on rows of one document each, one of them filled up."""
  shape = dict(vocab_size=300, length=16, norm_epsilon=1e-3, mlp_ratio=2.0)
  shape["encoder"] = dict(kind="bert", width=8, depth=2, heads=2)
  make, name = {
    "sequence": (lambda: text_classification(num_classes=3, **shape), "Sequence"),
    "token": (lambda: tagging(num_classes=3, **shape), "Token"),
    "question": (lambda: span_extraction(**shape), "QuestionAnswering"),
  }[task]
  objective = make()
  batch = small_batch()
  params = shaken(jax.eval_shape(objective.init, KEY, batch).params)
  config = transformers.BertConfig(
    vocab_size=300,
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=16,
    max_position_embeddings=16,
    layer_norm_eps=1e-3,
    num_labels=2 if task == "question" else 3,
  )
  kind = f"BertFor{name}" + ("Classification" if task != "question" else "")
  model = getattr(transformers, kind)(config).eval()
  model.load_state_dict(their_weights(params, task))
  given = dict(
    input_ids=torch.from_numpy(np.asarray(batch["token"]).astype(np.int64)),
    attention_mask=torch.from_numpy(np.asarray(batch["segment"]).astype(np.int64)),
    token_type_ids=torch.from_numpy(np.asarray(batch["kind"]).astype(np.int64)),
  )
  with torch.no_grad():
    found = model(**given)
  logits = np.asarray(objective.logits(Variables(params), Text.of(batch), {}))
  where = np.asarray(batch["segment"] == 1)
  if task == "sequence":
    assert_close(logits, found.logits.numpy())
  elif task == "token":
    assert_close(logits[where], found.logits.numpy()[where])
  else:
    theirs = torch.stack([found.start_logits, found.end_logits], dim=-1).numpy()
    assert_close(logits[where], theirs[where])
  ours = objective.label_loss(jnp.asarray(logits), batch)
  assert_close(ours.value(), np.float32(by_hand(task, logits, batch)))


def small_batch():
  rng = np.random.default_rng(0)
  token = rng.integers(4, 300, size=(2, 16))
  position = np.tile(np.arange(16), (2, 1))
  segment = np.ones((2, 16), int)
  segment[1, 11:] = 0
  kind = (position >= 6).astype(int)
  word = np.where((position == 0) | (segment == 0), -1, position)
  tag = np.where((word >= 0) & (position % 3 > 0), position % 3, -1)
  columns = dict(
    token=token,
    position=position * segment,
    segment=segment,
    word=word,
    kind=kind * segment,
    characters=0 * word,
    tag=tag,
    label=[2, 0],
    start=[7, 0],
    end=[9, 0],
  )
  return {name: jnp.asarray(np.int32(column)) for name, column in columns.items()}


def their_weights(params, task):
  """The tensors of `Bert...` from ours, by names of its own layout."""
  from maskjax.convert import bert, layout

  config = dict(
    vocab_size=300,
    hidden_size=8,
    intermediate_size=16,
    num_hidden_layers=2,
    max_position_embeddings=16,
    type_vocab_size=2,
  )
  entries = bert.encoder_entries(config, "bert")
  out = {"question": "qa_outputs"}.get(task, "classifier")
  count = 2 if task == "question" else 3
  entries |= layout.dense(out, "classes", (count, 8))
  if task == "sequence":
    entries |= layout.dense("bert.pooler.dense", "pool", (8, 8))
  found = layout.to_tensors(entries, params)
  return {name: torch.from_numpy(np.array(t)) for name, t in found.items()}


def by_hand(task, logits, batch):
  batch = {name: np.asarray(column) for name, column in batch.items()}

  def error(row, label):
    return np.log(np.exp(row).sum()) - row[label]

  if task == "sequence":
    return np.mean([error(r, k) for r, k in zip(logits, batch["label"], strict=True)])
  if task == "token":
    at = np.argwhere(batch["tag"] >= 0)
    return np.mean([error(logits[b, n], batch["tag"][b, n]) for b, n in at])
  losses = []
  for b in range(2):
    # Of all tokens, the question's too, but for padding.
    filled = logits[b][batch["segment"][b] > 0]
    losses += [error(filled[:, 0], batch["start"][b])]
    losses += [error(filled[:, 1], batch["end"][b])]
  return np.mean(losses)


def test_features_are_dropped_but_to_find_spans(monkeypatch):
  rates = {}

  def record(module, y, rate):
    rates[type(module).__name__, getattr(module, "num_classes", None)] = rate
    return y

  monkeypatch.setattr(labels, "dropout", record)
  for objective in (
    tagging(num_classes=3, **SHAPE, dropout=0.1),
    span_extraction(**SHAPE, dropout=0.1),
  ):
    jax.eval_shape(objective.init, KEY, small_batch())
  assert rates == {("TokenClassifier", 3): 0.1, ("TokenClassifier", 2): 0.0}


def test_answers_are_found_in_the_context_alone():
  batch, logits = small_batch(), jnp.zeros((2, 16, 2))
  # Of the question, token 3 is far likelier than the answer in the context.
  logits = logits.at[:, 3].set(9.0).at[0, 7, 0].set(5.0).at[0, 9, 1].set(5.0)
  logits = logits.at[1, 0].set(5.0)
  assert (
    span_extraction(**SHAPE).label_loss(logits, batch).metrics["exact"].value() == 1
  )


def test_an_answer_does_not_end_before_it_begins_nor_is_too_long():
  objective = span_extraction(**SHAPE, longest=3)
  logits = np.full((2, 8, 2), -5.0, np.float32)
  logits[0, 6, 0] = logits[0, 2, 1] = 3.0  # the best pair is no span
  logits[0, 4, 0], logits[0, 5, 1] = 1.5, 2.0
  logits[1, 1, 0] = logits[1, 6, 1] = 3.0  # too long
  logits[1, 0] = 1.0
  start, end = objective.answers(jnp.asarray(logits))
  assert (start.tolist(), end.tolist()) == ([4, 0], [5, 0])


def finetune_config(folder, setting):
  """A setting of the config for a tiny network, begun with a run's encoder."""
  config = configs.load(f"configs/text/finetune.py:{setting}")
  # The numbers are read off the data's tokenizer.
  shape = {key: value for key, value in SHAPE.items() if key != "vocab_size"}
  config.objective.update(vocabulary="", **shape, dtype="float32")
  config.num_steps, config.log_every, config.batch_size = 30, 10, 16
  config.optimizer.update(learning_rate=1e-2, warmup_steps=3)
  files = dict(classes="texts", tags="tags", questions="questions")
  for split in ("train", "test"):
    config.data[split].path = str(folder / f"{files[setting]}.jsonl")
    config.data[split].tokenizer = str(folder / "tokenizer.json")
    config.data[split].length = 64
    if setting == "questions":
      config.data[split].stride = 8
  return config.copy_and_resolve_references()


def test_finetuning_from_a_run(folder, tmp_path):
  pretrained = configs.load("configs/text/bert.py:small").copy_and_resolve_references()
  pretrained.objective = dict(name="bert", **SHAPE)
  shapes = jax.eval_shape(
    resolve.build(__import__("maskjax").objectives, pretrained.objective).init,
    KEY,
    {name: jnp.zeros((1, 64), jnp.int32) for name in Text.__dataclass_fields__},
  )
  with workdirs.opened(pretrained, tmp_path / "base") as opened:
    checkpoints = workdirs.checkpoints(opened.folder, pretrained)
    checkpoints.save_weights(0, shaken(shapes.params))
    checkpoints.close()
  config = finetune_config(folder, "tags")
  config.init_from = str(tmp_path / "base")
  runs.train(config, tmp_path / "run")
  rows = list(metrics.read_json_lines(tmp_path / "run" / workdirs.METRICS))
  losses = [row["train/loss"] for row in rows if "train/loss" in row]
  assert losses[-1] < 0.8 * losses[0]
  assert (tmp_path / "run" / "tokenizer.json").is_file()


@pytest.mark.parametrize("setting", ["classes", "tags", "questions"])
def test_every_setting_starts(folder, setting):
  prepared = experiment.prepare(finetune_config(folder, setting))
  with prepared.train(0) as batches:
    batch = next(batches)
  params = prepared.untrained().params
  first, second = (
    float(
      jax.jit(prepared.objective.loss)(Variables(params, ()), batch, Step(k)).value()
    )
    for k in jax.random.split(KEY)
  )
  assert np.isfinite([first, second]).all() and first != second  # dropout
  shapes = prepared.objective.batch_shapes(16)
  assert shapes.keys() <= batch.keys() | {"index"}


@pytest.mark.parametrize(
  ("name", "line", "message"),
  [
    ("labeled_text", "{", "t.jsonl:1: expected an object in JSON"),
    ("labeled_text", '{"text": "a"}', "t.jsonl:1: expected 'label', int"),
    ("labeled_text", '{"text": "", "label": 1}', "expected 'text', str"),
    ("labeled_text", '{"text": "a", "label": -1}', "'label': expected at least 0"),
    ("labeled_text", "", "expected an object|it is empty"),
    ("tagged_text", '{"words": ["a"], "tags": [1, 2]}', "1 words and 2 tags"),
    ("tagged_text", '{"words": ["a"], "tags": ["N"]}', "expected integers from 0"),
    (
      "questions",
      '{"question": "q", "context": "abc", "answer": "b", "start": 0}',
      "expected the answer 'b' in the context, from its character start=0 on",
    ),
  ],
)
def test_mistakes(folder, tmp_path, name, line, message):
  (tmp_path / "t.jsonl").write_text(line)
  with pytest.raises(UserError, match=message):
    getattr(data.sources, name)(
      path=str(tmp_path / "t.jsonl"), tokenizer=str(folder / "tokenizer.json")
    )
