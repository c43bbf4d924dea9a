"""Rows that were packed once, read again."""

import sys

import numpy as np
import pytest

from maskjax import UserError, data, main
from maskjax.data import shards
from maskjax.data.text import text

REFERENCE = dict(name="python_reference", split="test")
ROWS = dict(
  documents=REFERENCE, tokenizer=dict(documents=REFERENCE, size=400), length=64
)


def test_rows_come_back(tmp_path, monkeypatch):
  whole = text(**ROWS)
  count = shards.write(tmp_path, **ROWS)
  again = data.packed_rows(root=str(tmp_path))
  assert count == len(again) == len(whole) and again.vocabulary == whole.vocabulary
  for i in (0, 7, count - 1):
    for name, column in whole[i].items():
      np.testing.assert_array_equal(again[i][name], column)
  # In several shards there are as many tokens.
  monkeypatch.setattr(shards, "SHARD", 9)
  shards.write(tmp_path, **ROWS, split="parts")
  parts = data.packed_rows(root=str(tmp_path), split="parts")
  assert len(list((tmp_path / "parts").glob("*.npy"))) == 4
  tokens = [
    np.sort(np.concatenate([r["token"][r["word"] >= 0] for r in source]))
    for source in (whole, parts)
  ]
  np.testing.assert_array_equal(*tokens)
  with data.Pipeline(source=parts, batch_size=8)() as batches:
    assert next(batches)["token"].shape == (8, 64)


def test_scores_come_back(tmp_path):
  statistic = dict(name="informative_rates", training=REFERENCE)
  whole = text(**ROWS, statistic=statistic)
  shards.write(tmp_path, **ROWS, statistic=statistic)
  again = data.packed_rows(root=str(tmp_path))
  for i in (0, 7):
    assert again[i]["score"].dtype == np.float32 and again[i]["score"].any()
    np.testing.assert_array_equal(again[i]["score"], whole[i]["score"])
    np.testing.assert_array_equal(again[i]["token"], whole[i]["token"])
  with pytest.raises(UserError, match="did you mean 'informative_rates'"):
    shards.write(tmp_path / "other", **ROWS, statistic="informative_rate")


def test_the_command(tmp_path, monkeypatch, capsys):
  out = tmp_path / "rows"
  command = ["maskjax", "pack", "--config=configs/text/bert.py:small", f"--out={out}"]
  monkeypatch.setattr(sys, "argv", command)
  with pytest.raises(SystemExit) as ended:
    main.main()
  assert ended.value.code == 0
  lines = capsys.readouterr().out.splitlines()
  assert [line.split(":")[0] for line in lines] == ["train", "test"]
  assert len(data.packed_rows(root=str(out), split="test")) > 100


def test_mistakes(tmp_path):
  with pytest.raises(UserError, match="expected rows that `maskjax pack` wrote"):
    data.packed_rows(root=str(tmp_path))
  shards.write(tmp_path, **ROWS)
  with pytest.raises(UserError, match="has the split 'train': expected a new one"):
    shards.write(tmp_path, **ROWS)
  other = {**ROWS, "tokenizer": dict(documents=REFERENCE, size=300)}
  with pytest.raises(UserError, match="rows of another vocabulary"):
    shards.write(tmp_path, **other, split="test")
  with pytest.raises(UserError, match="no split 'trian': did you mean 'train'"):
    data.packed_rows(root=str(tmp_path), split="trian")
  file = tmp_path / "train" / "00000.npy"
  file.write_bytes(file.read_bytes()[:1000])
  with pytest.raises(UserError, match="cannot read .*train/00000.npy"):
    data.packed_rows(root=str(tmp_path))
