"""Systems of text know their vocabulary by its name, or from the data."""

import pytest

from maskjax import config as configs
from maskjax import data, experiment, resolve
from maskjax.errors import UserError
from maskjax.systems.text.bert import bert
from maskjax.tokens.vocabularies import KEYS, KNOWN, spelled_out

SMALL = dict(length=16, encoder=dict(width=8, depth=1, heads=2))


@pytest.mark.parametrize("name", KNOWN)
def test_known_vocabularies_hold_their_tokens(name):
  known = KNOWN[name]
  assert list(known.special) == sorted(set(known.special))
  assert {known.pad, known.mask} <= set(known.special)
  assert 0 <= known.special[0] and known.special[-1] < known.size
  tokens = bert(vocabulary=name, **SMALL).rows.ids
  expected = (known.size, known.pad, known.mask, known.special)
  assert (tokens.size, tokens.pad, tokens.mask, tokens.special) == expected


@pytest.mark.parametrize(
  ("keywords", "message"),
  [
    ({}, "vocab_size is missing: .* vocabulary, one of: bert-base-uncased, "),
    ({"vocabulary": ""}, "vocab_size is missing"),
    ({"vocabulary": "roberta"}, "no vocabulary 'roberta': did you mean 'roberta-base'"),
    (
      {"vocabulary": "roberta-base", "mask_id": 3},
      "vocabulary='roberta-base' and mask_id=3: expected either",
    ),
  ],
)
def test_vocabularies_that_are_wrong(keywords, message):
  with pytest.raises(UserError, match=message):
    bert(**keywords, **SMALL)


def test_numbers_replace_a_name():
  found = spelled_out({"vocabulary": "bert-base-cased", "length": 8})
  assert found.pop("length") == 8
  assert tuple(found) == KEYS
  assert spelled_out({"length": 8, "vocabulary": ""}) == {"length": 8}


@pytest.fixture
def config():
  config = configs.load("configs/text/bert.py:small")
  config.data.train = config.data.test  # shorter
  return config


def test_what_an_objective_leaves_out_is_read_off_the_data(config):
  config.data.train.tokenizer.size = 300
  prepared = experiment.prepare(config)
  vocabulary = prepared.vocabulary
  found = prepared.config.objective
  assert (found.vocab_size, found.pad_id, found.mask_id) == (
    len(vocabulary),
    vocabulary.pad,
    vocabulary.mask,
  )
  assert list(found.special_ids) == vocabulary.special.tolist()
  assert prepared.objective.rows.ids.size == len(vocabulary) == 300
  assert not set(KEYS) & set(config.objective)  # which is the caller's


def test_what_an_objective_has_is_checked_against_the_data(config):
  config.objective.mask_id = 1
  with pytest.raises(UserError, match="masks by token 3: expected objective.mask_id=1"):
    experiment.prepare(config)
  del config.objective.mask_id
  config.objective.vocabulary = "bert-base-uncased"
  with pytest.raises(UserError, match="masks by token 3: .*mask_id=103"):
    experiment.prepare(config)


def test_a_named_vocabulary_needs_no_data(monkeypatch):
  monkeypatch.delattr(data.sources, "packed_rows")
  config = configs.load("configs/text/bert.py:roberta")
  config, _ = experiment.with_vocabulary(config)
  assert "vocabulary" not in config.objective
  assert config.objective.mask_id == KNOWN["roberta-base"].mask


def test_objectives_that_know_no_vocabulary_are_left_alone():
  config = configs.load("configs/image/mae.py:digits")
  assert experiment.with_vocabulary(config, whole=True) == (config, None)
  config.objective.name = "maee"
  with pytest.raises(UserError, match="no 'maee' .* did you mean 'mae'"):
    experiment.with_vocabulary(config)


def test_which_keywords_a_part_takes():
  assert {"mask_ratio", "vocabulary", *KEYS} <= resolve.takes(bert)
  assert resolve.takes(lambda **anything: None) is None
