"""Sources that read from object storage give what they give from local files."""

import io
from pathlib import Path

import numpy as np
import pytest
from fsspec.core import url_to_fs
from PIL import Image

import maskjax.data
from maskjax import storage
from maskjax.errors import RecordError, UserError


def upload(folder: Path, root: str) -> str:
  """Copies all files of a folder."""
  system, name = url_to_fs(root)
  for file in folder.rglob("*"):
    if file.is_file():
      target = f"{name}/{file.relative_to(folder)}"
      system.pipe_file(target, file.read_bytes())
  return root


def check_same(found, expected):
  assert len(found) == len(expected)
  for i in range(len(expected)):
    assert found[i].keys() == expected[i].keys()
    for key, value in expected[i].items():
      np.testing.assert_array_equal(found[i][key], value)


def decode_byte(data: bytes):
  return {"label": np.asarray(data[0], np.int32)}


def test_image_folder(store, tmp_path):
  rng = np.random.default_rng(0)
  for name in ("b/x.png", "b/deep/y.png", "a/z.png", "a-/w.PNG", "a/.t/masked.png"):
    file = tmp_path / "images" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (5, 4, 3), np.uint8)).save(file, "PNG")
  (tmp_path / "images" / "a" / "notes.txt").write_text("no image")
  local = maskjax.data.image_folder(root=str(tmp_path / "images"))
  root = upload(tmp_path / "images", store.root)
  found = maskjax.data.image_folder(root=root)
  assert found.classes == local.classes == ["a", "a-", "b"]
  assert [file.removeprefix(root) for file in found.files] == [
    file.removeprefix(str(tmp_path / "images")) for file in local.files
  ]
  check_same(found, local)
  with maskjax.data.Pipeline(source=found, batch_size=4)(0) as batches:
    assert next(batches)["image"].shape == (4, 5, 4, 3)


def test_image_folder_mistakes(store):
  with pytest.raises(UserError, match=f"no images in '{store.root}"):
    maskjax.data.image_folder(root=store.root)
  system, name = url_to_fs(store.root)
  system.pipe_file(f"{name}/a.png", b"no image")
  source = maskjax.data.image_folder(root=store.root)
  with pytest.raises(RecordError, match=f"cannot decode '{store.root}/a.png'"):
    source[0]


def test_idx(store, tmp_path):
  rng = np.random.default_rng(0)
  for name, shape in (("images-idx3", (7, 4, 4)), ("labels-idx1", (7,))):
    header = bytes((0, 0, 8, len(shape)))
    header += b"".join(size.to_bytes(4, "big") for size in shape)
    content = rng.integers(0, 10, shape, np.uint8).tobytes()
    (tmp_path / f"train-{name}-ubyte").write_bytes(header + content)
  expected = maskjax.data.idx(root=str(tmp_path))
  check_same(maskjax.data.idx(root=upload(tmp_path, store.root)), expected)
  with pytest.raises(UserError, match="t10k-images"):
    maskjax.data.idx(root=store.root, split="test")
  with pytest.raises(UserError, match=f"no folder '{store.root}/none'"):
    maskjax.data.idx(root=f"{store.root}/none")


def test_array_record(store, tmp_path):
  from array_record.python.array_record_module import ArrayRecordWriter

  def write(first: int):
    for part in range(2):
      writer = ArrayRecordWriter(str(tmp_path / f"part-{part}.array_record"))
      for i in range(3):
        writer.write(bytes([first + 3 * part + i]))
      writer.close()
    upload(tmp_path, store.root)

  pattern = f"{store.root}/part-*.array_record"
  for first in (0, 100):  # the second time, the objects have been replaced
    write(first)
    source = maskjax.data.array_record(paths=pattern, decode=decode_byte)
    labels = [int(source[i]["label"]) for i in range(len(source))]
    assert labels == list(range(first, first + 6))
  with pytest.raises(UserError, match="no file 'gs|s3://tests/.*none"):
    maskjax.data.array_record(paths=f"{store.root}/none*", decode=decode_byte)


def test_array_record_is_copied_once(store, tmp_path, monkeypatch):
  from array_record.python.array_record_module import ArrayRecordWriter

  writer = ArrayRecordWriter(str(tmp_path / "all.array_record"))
  writer.write(b"\x05")
  writer.close()
  path = f"{upload(tmp_path, store.root)}/all.array_record"
  maskjax.data.array_record(paths=[path], decode=decode_byte)
  seen = store.proxy.watch(b"GET [^ ]*alt=media|GET /tests/[^? ]*all.array_record")
  source = maskjax.data.array_record(paths=[path], decode=decode_byte)
  assert int(source[0]["label"]) == 5
  assert not seen.is_set()
  storage.read_bytes(path)
  assert seen.is_set()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  """Where TFDS has prepared six images and their numbers."""
  import tensorflow_datasets as tfds

  class Numbers(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
      image = tfds.features.Image(shape=(2, 2, 1))
      features = tfds.features.FeaturesDict({"image": image, "label": np.int32})
      return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, _):
      return {"train": self._generate_examples()}

    def _generate_examples(self):
      for i in range(6):
        picture = io.BytesIO()
        Image.new("L", (2, 2), i).save(picture, "PNG")
        picture.seek(0)
        yield i, {"image": picture, "label": i}

  folder = tmp_path_factory.mktemp("tfds")
  Numbers(data_dir=folder, file_format="array_record").download_and_prepare()
  return folder


def test_tfds(store, prepared):
  keywords = {"dataset": "numbers", "split": "train[:4]"}
  expected = maskjax.data.tfds(data_dir=str(prepared), **keywords)
  root = upload(prepared, store.root)
  check_same(maskjax.data.tfds(data_dir=root, **keywords), expected)
  with pytest.raises(UserError, match=f"not prepared in '{store.root}/none"):
    maskjax.data.tfds(data_dir=f"{store.root}/none", **keywords)
