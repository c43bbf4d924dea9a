"""Image folders, ArrayRecord files and TFDS, each written by the test."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

import maskjax.data
from maskjax.errors import RecordError, UserError


def save(path, level=100, size=(6, 4), mode="RGB"):
  path.parent.mkdir(parents=True, exist_ok=True)
  color = level if mode in ("L", "I;16") else (level,) * 3
  Image.new(mode, size[::-1], color).save(path)


def decode_pair(data: bytes):
  image = np.frombuffer(data[1:], np.uint8).reshape(2, 2, 1)
  return {"image": image, "label": np.asarray(data[0], np.int32)}


def test_class_folders(tmp_path):
  save(tmp_path / "dog" / "b.png", 10)
  save(tmp_path / "dog" / "more" / "a.PNG", 20)
  save(tmp_path / "cat" / "x.bmp", 30)
  save(tmp_path / "cat" / ".masked.png")
  save(tmp_path / "cat" / ".thumbnails" / "small" / "x.png")
  save(tmp_path / ".cache" / "y.png")
  (tmp_path / "cat" / "notes.txt").write_text("no image")
  (tmp_path / "empty").mkdir()
  source = maskjax.data.image_folder(root=str(tmp_path))
  # An empty class keeps its number, so that splits agree on the labels.
  assert source.classes == ["cat", "dog", "empty"]
  found = [(int(source[i]["label"]), source[i]["image"].max()) for i in range(3)]
  assert len(source) == 3 and found == [(0, 30), (1, 10), (1, 20)]
  assert source[0]["image"].shape == (6, 4, 3)
  assert source[0]["label"].dtype == np.int32


@pytest.mark.parametrize(("channels", "mode"), [(1, "RGB"), (3, "L")])
def test_flat_folder_has_no_labels(tmp_path, channels, mode):
  for name in ("b.webp", "a.png"):
    save(tmp_path / name, mode=mode)
  (tmp_path / "annotations").mkdir()
  source = maskjax.data.image_folder(root=str(tmp_path), channels=channels)
  assert len(source) == 2 and source.files[0].endswith("a.png")
  assert source[0].keys() == {"image"} and source.classes == ()
  np.testing.assert_array_equal(
    source[0]["image"], np.full((6, 4, channels), 100, np.uint8)
  )


def test_folder_mistakes(tmp_path):
  with pytest.raises(UserError, match="nowhere"):
    maskjax.data.image_folder(root=str(tmp_path / "nowhere"))
  with pytest.raises(UserError, match=rf"{tmp_path}.*looked for .*\.jpg.*\.png"):
    maskjax.data.image_folder(root=str(tmp_path))
  with pytest.raises(UserError, match="channels=1 or 3"):
    maskjax.data.image_folder(root=str(tmp_path), channels=4)
  save(tmp_path / "a.png")
  save(tmp_path / "class" / "b.png")
  with pytest.raises(UserError, match="'a.png'.*'class/b.png'"):
    maskjax.data.image_folder(root=str(tmp_path))


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_truncated_image_names_the_file(tmp_path, name):
  noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
  Image.fromarray(noise).save(tmp_path / name)
  data = (tmp_path / name).read_bytes()
  (tmp_path / name).write_bytes(data[: len(data) // 2])
  source = maskjax.data.image_folder(root=str(tmp_path))
  with pytest.raises(RecordError, match=f"cannot decode .*{name}"):
    source[0]


def test_sixteen_bits_are_not_clipped_in_silence(tmp_path):
  save(tmp_path / "deep.png", 40_000, mode="I;16")
  source = maskjax.data.image_folder(root=str(tmp_path), channels=1)
  with pytest.raises(RecordError, match="deep.png.*not an 8-bit image"):
    source[0]


@pytest.fixture
def array_record_files(tmp_path):
  from array_record.python.array_record_module import ArrayRecordWriter

  for shard in range(2):
    writer = ArrayRecordWriter(str(tmp_path / f"{shard}.array_record"), "group_size:1")
    for i in range(3):
      writer.write(bytes([3 * shard + i] * 5))
    writer.close()
  return tmp_path


def test_array_record(array_record_files):
  source = maskjax.data.array_record(
    paths=str(array_record_files / "*.array_record"), decode=decode_pair
  )
  assert len(source) == 6
  assert [int(source[i]["label"]) for i in range(6)] == list(range(6))
  np.testing.assert_array_equal(source[4]["image"], np.full((2, 2, 1), 4))


def test_array_record_decodes_by_import_path(array_record_files):
  path = str(array_record_files / "1.array_record")
  source = maskjax.data.array_record(paths=[path], decode="builtins:len")
  assert [source[i] for i in range(3)] == [5, 5, 5]
  with pytest.raises(UserError, match="cannot import 'no_such_lab:decode'"):
    maskjax.data.array_record(paths=[path], decode="no_such_lab:decode")


def test_array_record_mistakes(tmp_path):
  with pytest.raises(UserError, match=r"no file .*\*\.array_record"):
    maskjax.data.array_record(
      paths=str(tmp_path / "*.array_record"), decode=decode_pair
    )
  with pytest.raises(UserError, match="no file .*missing"):
    maskjax.data.array_record(paths=[str(tmp_path / "missing")], decode=decode_pair)
  (tmp_path / "text").write_text("not such a file")
  with pytest.raises(UserError, match="cannot open array_record"):
    maskjax.data.array_record(paths=[str(tmp_path / "text")], decode=decode_pair)


@pytest.fixture(scope="module")
def tfds_dir(tmp_path_factory):
  """Where a data set of 20 images of the levels 0 to 19 is prepared."""
  import tensorflow_datasets

  class Levels(tensorflow_datasets.core.GeneratorBasedBuilder):
    VERSION = tensorflow_datasets.core.Version("1.0.0")

    def _info(self):
      features = tensorflow_datasets.features
      image = features.Image(shape=(4, 4, 1), encoding_format="png")
      return tensorflow_datasets.core.DatasetInfo(
        builder=self,
        features=features.FeaturesDict(
          {"image": image, "label": features.ClassLabel(num_classes=20)}
        ),
      )

    def _split_generators(self, _):
      return {"train": self._generate_examples()}

    def _generate_examples(self):
      for level in range(20):
        data = io.BytesIO()
        Image.new("L", (4, 4), level).save(data, "PNG")
        data.seek(0)
        yield level, {"image": data, "label": level}

  data_dir = str(tmp_path_factory.mktemp("tfds"))
  builder = Levels(data_dir=data_dir, file_format="array_record")
  builder.download_and_prepare()
  return data_dir


def test_tfds(tfds_dir, monkeypatch):
  # So that any import of TensorFlow fails, even where it is installed.
  monkeypatch.setitem(sys.modules, "tensorflow", None)
  source = maskjax.data.tfds(dataset="levels", split="train", data_dir=tfds_dir)
  assert len(source) == 20
  records = [source[i] for i in range(20)]
  assert sorted(int(record["label"]) for record in records) == list(range(20))
  for record in records:
    assert record["label"].dtype == np.int32
    np.testing.assert_array_equal(
      record["image"], np.full((4, 4, 1), record["label"], np.uint8)
    )
  part = maskjax.data.tfds(
    dataset="levels", split="train[:25%]", data_dir=tfds_dir, label_key=None
  )
  assert len(part) == 5 and part[0].keys() == {"image"}


@pytest.mark.parametrize(
  ("keywords", "message"),
  [
    ({"dataset": "mnsit"}, "did you mean mnist"),
    ({"dataset": "mnist"}, "not prepared in .*run: tfds build mnist .*--data_dir="),
    ({"dataset": "mnist:9.9.9"}, "cannot open .*9.9.9"),
    ({"split": "tset"}, r"no split .*: it has \['train'\]"),
    ({"label_key": "class"}, r"no feature 'class': it has \['image', 'label'\]"),
  ],
)
def test_tfds_mistakes(tfds_dir, keywords, message):
  settings = {"dataset": "levels", "split": "train", "data_dir": tfds_dir, **keywords}
  with pytest.raises(UserError, match=message) as caught:
    maskjax.data.tfds(**settings)
  assert len(str(caught.value)) < 500


def test_tfds_notices_lost_records(tfds_dir, monkeypatch):
  import tensorflow_datasets

  monkeypatch.setattr(
    tensorflow_datasets.core.DatasetBuilder,
    "as_data_source",
    lambda self, split: [{}] * 7,
  )
  with pytest.raises(UserError, match="should have 20 records, but 7"):
    maskjax.data.tfds(dataset="levels", split="train", data_dir=tfds_dir)


def test_image_pairs(tmp_path):
  for i, name in enumerate(("a/1.png", "a/2.png", "b/1.jpg", "b/2.jpg")):
    save(tmp_path / name, 10 * i)
  (tmp_path / "pairs.txt").write_text("a/1.png a/2.png\n\nb/2.jpg b/1.jpg\n")
  source = maskjax.data.image_pairs(root=str(tmp_path))
  assert len(source) == 2 and "pairs.txt" in repr(source)
  levels = [[source[i][key].max() for key in ("image", "image2")] for i in range(2)]
  assert levels == [[0, 10], [30, 20]]
  assert source[1]["image2"].shape == (6, 4, 3)
  gray = maskjax.data.image_pairs(root=str(tmp_path), channels=1)
  assert gray[0]["image"].shape == (6, 4, 1)


@pytest.mark.parametrize(
  ("text", "message"),
  [
    (None, "no file '.*pairs.txt'"),
    ("", "found no line"),
    ("a.png b.png\na.png\n", "expected two paths a line, found 'a.png'"),
    ("a.png b.png c.png\n", "found 'a.png b.png c.png'"),
  ],
)
def test_image_pairs_mistakes(tmp_path, text, message):
  if text is not None:
    (tmp_path / "pairs.txt").write_text(text)
  with pytest.raises(UserError, match=message):
    maskjax.data.image_pairs(root=str(tmp_path))
  with pytest.raises(UserError, match="channels=1 or 3, got 2"):
    maskjax.data.image_pairs(root=str(tmp_path), channels=2)
