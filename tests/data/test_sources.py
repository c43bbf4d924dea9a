"""Sources in memory and IDX files."""

from pathlib import Path

import numpy as np
import pytest
from helpers.idx import write_idx

import maskjax.data
from maskjax.errors import UserError
from maskjax.resolve import build

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


def test_arrays_gives_the_rows():
  image = np.arange(24, dtype=np.uint8).reshape(3, 2, 4, 1)
  source = maskjax.data.arrays(image=image, label=np.array([5, 6, 7], np.int64))
  assert len(source) == 3
  record = source[2]
  np.testing.assert_array_equal(record["image"], image[2])
  assert record["label"] == 7 and record["label"].dtype == np.int32
  assert repr(source) == "arrays(image, label)"


@pytest.mark.parametrize("columns", [{}, {"a": [1, 2], "b": [1]}, {"a": 3.0}])
def test_arrays_needs_equal_lengths(columns):
  with pytest.raises(UserError, match="leading length"):
    maskjax.data.arrays(**columns)


def test_digits_splits_are_disjoint_and_complete():
  from sklearn.datasets import load_digits

  counts = {"train": 1437, "test": 360, "all": 1797}
  sources = {split: maskjax.data.digits(split=split) for split in counts}
  assert {split: len(source) for split, source in sources.items()} == counts
  data = load_digits()
  # The images have no duplicates, so that they differ in their bytes.
  shown = {
    split: {source[i]["image"].tobytes() for i in range(len(source))}
    for split, source in sources.items()
  }
  assert len(shown["all"]) == 1797
  assert shown["train"] | shown["test"] == shown["all"]
  assert not shown["train"] & shown["test"]
  # Every class is in the test split, in something like its share.
  assert np.bincount(sources["test"].columns["label"]).min() > 20
  record = sources["all"][11]
  assert record["image"].shape == (8, 8, 1) and record["image"].dtype == np.uint8
  levels = data.images[11] * 255 / 16
  assert np.abs(record["image"][..., 0] - levels).max() <= 0.5
  assert sources["all"].columns["image"].max() == 255
  assert record["label"] == data.target[11] and record["label"].dtype == np.int32


def test_digits_split_is_fixed():
  # Numbers that may never change: published results depend on them.
  labels = maskjax.data.digits(split="test").columns["label"][:8].tolist()
  assert labels == [2, 8, 2, 6, 6, 7, 1, 9]


def test_unknown_split():
  with pytest.raises(UserError, match="did you mean 'train'"):
    maskjax.data.digits(split="trian")
  with pytest.raises(UserError, match="there are: test, train"):
    maskjax.data.idx(root=".", split="all")


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_reads_what_was_written(tmp_path, suffix):
  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, (7, 5, 4), np.uint8)
  label = rng.integers(0, 10, 7)
  write_idx(tmp_path / f"t10k-images-idx3-ubyte{suffix}", image)
  write_idx(tmp_path / f"t10k-labels-idx1-ubyte{suffix}", label)
  source = build(
    maskjax.data.sources, {"name": "idx", "root": str(tmp_path), "split": "test"}
  )
  assert len(source) == 7
  np.testing.assert_array_equal(source[3]["image"], image[3][..., None])
  assert source[3]["label"] == label[3] and source[3]["label"].dtype == np.int32


def test_idx_complains_about_folder_and_file(tmp_path):
  with pytest.raises(UserError, match="nowhere.*dataset-fashion-mnist.*tfds"):
    maskjax.data.idx(root=str(tmp_path / "nowhere"), split="train")
  with pytest.raises(UserError, match="neither train-images-idx3-ubyte nor"):
    maskjax.data.idx(root=str(tmp_path), split="train")


@pytest.mark.parametrize(
  ("damage", "message"),
  [
    (lambda data: data[:-1], "truncated or damaged"),
    (lambda data: data + b"x", "truncated or damaged"),
    (lambda data: data[:9], "truncated or damaged"),
    (lambda data: b"\x89PNG" + data[4:], "not an IDX file of 3-dimensional"),
    (lambda data: b"", "not an IDX file"),
  ],
)
def test_idx_complains_about_damage(tmp_path, damage, message):
  path = tmp_path / "train-images-idx3-ubyte"
  data = write_idx(path, np.zeros((3, 2, 2)))
  path.write_bytes(damage(data))
  with pytest.raises(UserError, match=f"train-images-idx3-ubyte.*{message}"):
    maskjax.data.idx(root=str(tmp_path), split="train")


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: b"no gzip"])
def test_idx_complains_about_damaged_gzip(tmp_path, damage):
  path = tmp_path / "train-images-idx3-ubyte.gz"
  write_idx(path, np.arange(48).reshape(3, 4, 4))
  path.write_bytes(damage(path.read_bytes()))
  with pytest.raises(UserError, match="cannot read .*train-images-idx3-ubyte.gz"):
    maskjax.data.idx(root=str(tmp_path), split="train")


def test_fashion_mnist():
  if not FASHION_MNIST.is_dir():
    pytest.skip("the Debian package dataset-fashion-mnist is not installed")
  source = maskjax.data.idx(root=str(FASHION_MNIST), split="test")
  assert len(source) == 10_000
  assert source[0]["image"].shape == (28, 28, 1)
  assert np.bincount(source.columns["label"]).tolist() == [1000] * 10
