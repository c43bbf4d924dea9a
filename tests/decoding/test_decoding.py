"""Masks filled in, texts scored and embedded by a run in a workdir."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.arrays import shaken
from helpers.text.rows import source

from maskjax import config as configs
from maskjax import decoding, main
from maskjax import workdir as workdirs
from maskjax.errors import UserError
from maskjax.systems import bert
from maskjax.tokens import Text

SHAPE = dict(vocab_size=300, length=32, encoder=dict(width=8, depth=1, heads=2))
TEXTS = ["The [MASK] of a list.", "A [MASK] is [MASK]", "no mask at all"]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  """A run of a model that learned nothing."""
  folder = tmp_path_factory.mktemp("run")
  config = configs.load("configs/text/bert.py:small")
  config.objective = dict(name="bert", **SHAPE)
  params = make_params()
  with workdirs.opened(config.copy_and_resolve_references(), folder) as opened:
    source().vocabulary.save(opened.local / workdirs.TOKENIZER)
    checkpoints = workdirs.checkpoints(opened.folder, config)
    checkpoints.save_weights(3, params)
    checkpoints.close()
  return folder


def make_params():
  objective = bert(**SHAPE)
  shapes = jax.eval_shape(objective.init, jax.random.key(0), objective.batch_shapes(1))
  return shaken(shapes.params)


@pytest.fixture(scope="module")
def trained(workdir):
  return decoding.load(workdir)


def by_hand(trained, text, position):
  """Probabilities at a position of a text, alone in a row without padding."""
  vocabulary = trained.vocabulary
  ids = [vocabulary.first, *vocabulary.encode([text])[0].ids, vocabulary.last]
  row = jnp.array([ids])
  alone = Text(
    token=row,
    segment=jnp.ones_like(row),
    position=jnp.arange(len(ids))[None],
    word=jnp.zeros_like(row),
  )
  logits = trained.objective.model.apply(
    {"params": trained.variables.params}, alone, jnp.array([[position]])
  )[0, 0]
  return jax.nn.softmax(logits.at[jnp.arange(4)].set(-jnp.inf))


def test_masks_are_filled_in(trained):
  found = decoding.fill(trained, TEXTS[:2], top=3)
  assert [len(masks) for masks in found] == [1, 2]
  for text, masks in zip(TEXTS, found, strict=False):
    ids = trained.vocabulary.encode([text])[0].ids
    positions = 1 + np.flatnonzero(ids == trained.vocabulary.mask)
    for position, predictions in zip(positions, masks, strict=True):
      expected = by_hand(trained, text, position)
      best = np.argsort(-np.asarray(expected))[:3]
      assert [p.text for p in predictions] == [
        trained.vocabulary.decode([i]) for i in best
      ]
      np.testing.assert_allclose(
        [p.probability for p in predictions], expected[best], rtol=1e-4
      )


def test_texts_are_scored_token_by_token(trained):
  text = "The value of a list."
  ids = trained.vocabulary.encode([text])[0].ids
  found = decoding.pseudo_log_likelihood(trained, text)
  assert len(found) == len(ids)
  tokenizer = trained.vocabulary
  for position in (0, len(ids) - 1):
    row = jnp.array([[tokenizer.first, *ids, tokenizer.last]])
    masked = row.at[0, position + 1].set(tokenizer.mask)
    alone = Text(
      token=masked,
      segment=jnp.ones_like(row),
      position=jnp.arange(row.shape[1])[None],
      word=jnp.zeros_like(row),
    )
    logits = trained.objective.model.apply(
      {"params": trained.variables.params}, alone, jnp.array([[position + 1]])
    )[0, 0]
    logits = logits.at[jnp.arange(4)].set(-jnp.inf)
    expected = jax.nn.log_softmax(logits)[ids[position]]
    np.testing.assert_allclose(found[position], expected, rtol=1e-4)
  perplexity = decoding.pseudo_perplexity(trained, [text])
  np.testing.assert_allclose(perplexity, np.exp(-found.mean()), rtol=1e-6)


def test_embeddings_do_not_depend_on_what_stands_beside(trained):
  texts = ["The value.", "A longer text about lists", "x"]
  tokens = trained.token_embeddings(texts)
  counts = [len(found.ids) for found in trained.vocabulary.encode(texts)]
  assert [len(features) for features in tokens] == counts
  for pool in ("mean", "first"):
    together = trained.sentence_embeddings(texts, pool=pool)
    alone = np.concatenate([trained.sentence_embeddings([t], pool=pool) for t in texts])
    np.testing.assert_allclose(together, alone, rtol=2e-4, atol=2e-5)
  with pytest.raises(UserError, match="did you mean 'mean'"):
    trained.sentence_embeddings(texts, pool="means")


def test_a_text_may_fill_a_row(trained):
  """The longest text has no padding after it, and still loses its last token alone."""
  ids = trained.vocabulary.encode(["list " * 40])[0].ids
  longest = trained.vocabulary.decode(ids[: trained.length - 2])
  count = len(trained.vocabulary.encode([longest])[0].ids)
  assert count == trained.length - 2
  assert len(trained.token_embeddings([longest])[0]) == count


def run(monkeypatch, capsys, *arguments):
  monkeypatch.setattr(sys, "argv", ["maskjax", *map(str, arguments)])
  with pytest.raises(SystemExit) as ended:
    main.main()
  out, err = capsys.readouterr()
  return ended.value.code, out, err


def test_the_command(workdir, monkeypatch, capsys):
  base = ["fill", "--workdir", workdir, "--top", 2]
  texts = [f"--text={text}" for text in TEXTS]
  code, out, _ = run(monkeypatch, capsys, *base, *texts[:2])
  lines = out.splitlines()
  assert code == 0 and lines[0] == TEXTS[0] and lines[2] == TEXTS[1]
  assert [line[:4] for line in lines] == ["The ", "  1:", "A [M", "  1:", "  2:"]
  code, out, _ = run(monkeypatch, capsys, *base, texts[1], "--json")
  (found,) = json.loads(out)
  assert found["text"] == TEXTS[1] and len(found["masks"][1]) == 2
  code, _, err = run(monkeypatch, capsys, *base, texts[2])
  assert code == 2 and "has no mask: expected [MASK]" in err
  code, _, err = run(monkeypatch, capsys, *base, f"--text={'[MASK] ' * 40}")
  assert code == 2 and "41 tokens: expected 1 to 30" in err
  code, _, err = run(monkeypatch, capsys, "fill", "--workdir", workdir)
  assert code == 2 and "--text is missing" in err


def test_a_folder_without_a_tokenizer(workdir, tmp_path):
  (tmp_path / "config.json").write_text((workdir / "config.json").read_text())
  with pytest.raises(UserError, match="expected a run of a text system, with its tok"):
    decoding.load(tmp_path)
