"""The pipeline: order, resuming, sharding, evaluation and bad records."""

import functools
import itertools

import numpy as np
import pytest
from PIL import Image

import maskjax.data
from maskjax.data import Pipeline, arrays
from maskjax.errors import RecordError, UserError


def add_noise(record, rng):
  return {**record, "noise": rng.standard_normal(3)}


def double(record):
  return {**record, "double": record["value"] * 2}


def make(records=23, **settings):
  settings = {
    "source": arrays(value=np.arange(records) * 10),
    "batch_size": 8,
    "transforms": (add_noise, double),
    "process_index": 0,
    "process_count": 1,
    **settings,
  }
  return Pipeline(**settings)


def read(pipeline, count=None, start_step=0):
  with pipeline(start_step) as batches:
    return list(itertools.islice(batches, count))


def assert_same(batches, others):
  assert len(batches) == len(others)
  for batch, other in zip(batches, others, strict=True):
    assert batch.keys() == other.keys()
    for key in batch:
      assert batch[key].dtype == other[key].dtype
      np.testing.assert_array_equal(batch[key], other[key])


class Faulty:
  """Twelve records, of which some cannot be read."""

  def __init__(self, bad, error=None):
    self.bad = bad
    self.error = error or ValueError("broken")

  def __len__(self):
    return 12

  def __getitem__(self, index):
    if index in self.bad:
      raise self.error
    return {"value": np.asarray(index * 10)}

  def __repr__(self):
    return "faulty()"


def test_batches_hold_transformed_records_and_their_index():
  batch = read(make(), 1)[0]
  assert batch["value"].shape == (8,) and batch["noise"].shape == (8, 3)
  np.testing.assert_array_equal(batch["value"], batch["index"] * 10)
  np.testing.assert_array_equal(batch["double"], batch["index"] * 20)
  assert batch["index"].dtype == np.int32
  assert batch.keys() == {"value", "noise", "double", "index"}


@pytest.mark.parametrize(("num_threads", "prefetch"), [(0, 0), (0, 2), (1, 1), (3, 4)])
def test_threads_do_not_matter(num_threads, prefetch):
  reference = read(make(), 9)
  other = make(num_threads=num_threads, prefetch=prefetch)
  assert_same(read(other, 9), reference)


@pytest.mark.parametrize("start", [1, 2, 3, 7])
def test_resuming_goes_on_exactly(start):
  assert_same(read(make(), 10)[start:], read(make(), 10 - start, start))


@pytest.mark.parametrize("settings", [{}, {"repeat": False}])
@pytest.mark.parametrize("count", [2, 4, 8])
def test_processes_do_not_matter(count, settings):
  steps = None if settings else 7
  whole = read(make(**settings), steps, 1)
  parts = [
    read(make(process_index=i, process_count=count, **settings), steps, 1)
    for i in range(count)
  ]
  joined = [
    {key: np.concatenate([part[key] for part in step]) for key in step[0]}
    for step in zip(*parts, strict=True)
  ]
  assert joined[0]["value"].shape == (8,) and parts[0][0]["value"].shape == (
    8 // count,
  )
  assert_same(joined, whole)


def test_epochs_are_permutations_that_differ():
  # 23 batches of 8 are 8 epochs of 23.
  order = np.concatenate([batch["index"] for batch in read(make(), 23)])
  epochs = order.reshape(8, 23)
  np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(23), (8, 1)))
  assert len({epoch.tobytes() for epoch in epochs}) == 8
  noise = np.concatenate([batch["noise"] for batch in read(make(), 23)])
  assert len(np.unique(noise)) == 23 * 8 * 3


def test_the_seed_is_what_changes_the_order_and_the_noise():
  first, second = read(make(seed=1), 1)[0], read(make(seed=2), 1)[0]
  assert (first["index"] != second["index"]).any()
  assert not np.isin(first["noise"], second["noise"]).any()
  ordered = read(make(shuffle=False), 3)
  order = np.concatenate([batch["index"] for batch in ordered])
  np.testing.assert_array_equal(order, np.arange(24) % 23)


def test_evaluation_loses_no_record():
  pipeline = make(shuffle=False, repeat=False)
  batches = read(pipeline)
  assert len(batches) == pipeline.steps_per_epoch == 3
  order = np.concatenate([batch["index"] for batch in batches])
  valid = np.concatenate([batch["valid"] for batch in batches])
  np.testing.assert_array_equal(order, [*range(23), 22])
  np.testing.assert_array_equal(valid, [True] * 23 + [False])
  assert valid.dtype == bool
  assert_same(read(pipeline, start_step=2), batches[2:])
  assert read(pipeline, start_step=3) == read(pipeline, start_step=9) == []


def test_one_shuffled_epoch():
  batches = read(make(records=24, repeat=False))
  order = np.concatenate([batch["index"] for batch in batches])
  assert sorted(order) == list(range(24)) and list(order) != sorted(order)
  assert all(batch["valid"].all() for batch in batches)


def test_a_source_smaller_than_the_batch():
  assert make(records=3).steps_per_epoch == 1
  order = np.concatenate([batch["index"] for batch in read(make(records=3), 3)])
  np.testing.assert_array_equal(np.bincount(order), [8, 8, 8])
  (batch,) = read(make(records=3, shuffle=False, repeat=False))
  assert batch["valid"].sum() == 3
  assert read(make(records=1), 1)[0]["index"].tolist() == [0] * 8


def test_the_process_is_the_one_of_jax_by_default():
  settings = {"process_index": None, "process_count": None}
  assert_same(read(make(**settings), 3), read(make(), 3))


@pytest.mark.parametrize("num_threads", [0, 2])
@pytest.mark.parametrize(
  ("error", "message"),
  [
    (ValueError("broken"), r"record 5 of faulty\(\): ValueError: broken"),
    (RecordError("'a.png' is broken"), r"record 5 of faulty\(\): 'a.png' is broken"),
  ],
)
def test_bad_record_raises(error, message, num_threads):
  pipeline = make(source=Faulty({5}, error), batch_size=4, num_threads=num_threads)
  with pipeline() as batches, pytest.raises(RecordError, match=message):
    list(itertools.islice(batches, 3))


@pytest.mark.parametrize("on_bad_record", ["raise", "skip"])
def test_other_complaints_arrive_as_themselves(on_bad_record):
  source = Faulty({5}, UserError("the archive needs a password"))
  pipeline = make(source=source, on_bad_record=on_bad_record)
  with pipeline() as batches, pytest.raises(UserError) as caught:
    list(itertools.islice(batches, 3))
  assert type(caught.value) is UserError
  assert str(caught.value) == "the archive needs a password"


def test_a_failed_iterator_stays_failed():
  pipeline = make(source=Faulty({5}), batch_size=4, shuffle=False)
  with pipeline() as batches:
    next(batches)
    for _ in range(2):
      with pytest.raises(RecordError, match="record 5"):
        next(batches)


@pytest.mark.parametrize("num_threads", [0, 2])
def test_bad_records_are_skipped_and_counted(num_threads):
  source = Faulty({0, 5, 6, 11})
  settings = {"source": source, "on_bad_record": "skip", "batch_size": 4}
  batches = read(make(**settings, shuffle=False, repeat=False, num_threads=num_threads))
  rows = {key: np.concatenate([b[key] for b in batches]) for key in batches[0]}
  # Each bad record gives way to the next good one, the last to the first.
  np.testing.assert_array_equal(rows["index"], [1, 1, 2, 3, 4, 7, 7, 7, 8, 9, 10, 1])
  np.testing.assert_array_equal(
    rows["bad_records"], [1, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 2]
  )
  np.testing.assert_array_equal(rows["value"], rows["index"] * 10)
  # An evaluation must not count the substitutes.
  np.testing.assert_array_equal(rows["valid"], rows["bad_records"] == 0)
  assert rows["bad_records"].dtype == np.int32


def test_nothing_but_bad_records():
  pipeline = make(source=Faulty(set(range(12))), on_bad_record="skip")
  with (
    pipeline() as batches,
    pytest.raises(RecordError, match=r"12 bad records in a row.*faulty\(\).*broken"),
  ):
    next(batches)


@pytest.fixture
def folder(tmp_path):
  for i, size in enumerate([(20, 30), (24, 18), (40, 40), (18, 18)]):
    image = np.random.default_rng(i).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / f"{i}.png")
  return tmp_path


def test_ragged_images_need_a_transform(folder):
  source = maskjax.data.image_folder(root=str(folder))
  pipeline = make(source=source, batch_size=4, transforms=())
  with (
    pipeline() as batches,
    pytest.raises(UserError, match=r"'image': uint8 \[18, 18, 3\], .*'resize'"),
  ):
    next(batches)
  # The short side alone still leaves them ragged.
  specs = [{"name": "resize", "size": 16}, {"name": "center_crop", "size": 16}]
  transforms = [maskjax.data.bind_transform(spec) for spec in specs]
  batch = read(make(source=source, batch_size=4, transforms=transforms), 1)[0]
  assert batch["image"].shape == (4, 16, 16, 3)


def test_truncated_image_names_record_and_file(folder):
  path = folder / "2.png"
  path.write_bytes(path.read_bytes()[:200])
  settings = {
    "source": maskjax.data.image_folder(root=str(folder)),
    "batch_size": 4,
    "transforms": (functools.partial(maskjax.data.resize, size=(8, 8)),),
  }
  with (
    make(**settings)() as batches,
    pytest.raises(RecordError, match=r"record 2 of image_folder.*2\.png"),
  ):
    next(batches)
  batch = read(make(**settings, on_bad_record="skip"), 1)[0]
  assert sorted(batch["index"]) == [0, 1, 3, 3] and batch["bad_records"].sum() == 1


def test_records_must_have_the_same_keys_and_dtypes():
  def drop(record):
    return {k: v for k, v in record.items() if k != "value" or record["index"] > 3}

  def widen(record):
    return {
      **record,
      "value": record["value"].astype(["f4", "f8"][record["index"] % 2]),
    }

  for transform, message in (
    (drop, "differ in their keys"),
    (widen, "float32.*float64"),
  ):
    with (
      make(transforms=[transform])() as batches,
      pytest.raises(UserError, match=message),
    ):
      list(itertools.islice(batches, 3))


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"process_count": 3}, "batch_size 8 does not divide among 3 processes"),
    ({"process_index": 2, "process_count": 2}, "process_index 2 is not below"),
    ({"on_bad_record": "skpi"}, "did you mean 'skip'"),
    ({"batch_size": 0}, "batch_size must be at least 1"),
    ({"seed": -1}, "seed must be"),
    ({"source": arrays(value=[])}, r"the source arrays\(value\) is empty"),
    ({"transforms": [maskjax.data.resize]}, "the transform resize: missing .*'size'"),
  ],
)
def test_mistakes(settings, message):
  with pytest.raises(UserError, match=message):
    make(**settings)
  with pytest.raises(UserError, match="start_step"):
    make()(-1)
