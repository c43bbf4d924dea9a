"""Transforms against NumPy, and what must hold for any image."""

import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import maskjax.data
from maskjax.data import bind_transform
from maskjax.errors import UserError

RANDOM = {
  "random_crop": {"size": (5, 4), "padding": 2},
  "random_resized_crop": {"size": 6},
  "random_flip": {},
  "spaced_patches": {"patch_size": (2, 6), "gap": 2},
  "rand_augment": {"prob": 1.0},
  "trivial_augment": {},
  "color_jitter": {},
}


def make_image(shape=(8, 10, 3), dtype=np.uint8, seed=0):
  rng = np.random.default_rng(seed)
  if dtype == np.uint8:
    return rng.integers(0, 256, shape, np.uint8)
  return rng.standard_normal(shape, np.float32)


def apply(name, image, rng=None, **keywords):
  """Applies the transform to a record that it must leave as it was."""
  transform = bind_transform({"name": name, **keywords})
  record = {"image": image.copy(), "label": np.asarray(3)}
  result = transform(record, *(() if rng is None else (rng,)))
  np.testing.assert_array_equal(record["image"], image)
  assert result["label"] == 3
  return result["image"]


def test_to_float_and_normalize():
  image = make_image()
  scaled = apply("to_float", image)
  assert scaled.dtype == np.float32
  np.testing.assert_allclose(scaled, image / 255, rtol=1e-6)
  mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
  normal = apply("normalize", scaled, mean=mean, std=std)
  assert normal.dtype == np.float32
  for c in range(3):
    expected = (image[..., c] / 255 - mean[c]) / std[c]
    np.testing.assert_allclose(normal[..., c], expected, rtol=1e-5, atol=1e-6)
  gray = apply("normalize", scaled[..., :1], mean=0.5, std=0.25)
  np.testing.assert_allclose(gray, scaled[..., :1] * 4 - 2, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_resize_by_half_is_the_mean_of_four(channels, dtype):
  image = make_image((8, 12, channels), dtype)
  small = apply("resize", image, size=4, method="box")
  assert small.shape == (4, 6, channels) and small.dtype == dtype
  # Pillow rounds bytes twice, after the rows and after the columns: by 1 at most.
  expected = image.reshape(4, 2, 6, 2, channels).mean((1, 3), dtype=np.float64)
  np.testing.assert_allclose(small, expected, atol=1 if dtype == np.uint8 else 1e-5)


@given(height=st.integers(1, 40), width=st.integers(1, 40), size=st.integers(1, 20))
def test_resize_shapes(height, width, size):
  image = make_image((height, width, 1))
  short = apply("resize", image, size=size)
  assert min(short.shape[:2]) == size
  assert max(short.shape[:2]) == max(height, width) * size // min(height, width)
  assert apply("resize", image, size=(size, 3)).shape == (size, 3, 1)


def test_bicubic_is_the_default():
  image = make_image((9, 9, 3))
  expected = Image.fromarray(image).resize((5, 4), Image.Resampling.BICUBIC)
  np.testing.assert_array_equal(apply("resize", image, size=(4, 5)), expected)


@given(data=st.data(), height=st.integers(1, 20), width=st.integers(1, 20))
def test_center_crop_is_in_the_middle(data, height, width):
  size = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
  rows, columns = np.meshgrid(
    np.arange(height, dtype=np.uint8), np.arange(width, dtype=np.uint8), indexing="ij"
  )
  cut = apply("center_crop", np.stack([rows, columns], -1), size=size)
  assert cut.shape == (*size, 2)
  for axis, length in enumerate((height, width)):
    before = int(cut[0, 0, axis])
    after = length - 1 - int(cut[-1, -1, axis])
    assert abs(before - after) <= 1


@given(
  seed=st.integers(0, 1000),
  height=st.integers(3, 12),
  width=st.integers(3, 12),
  padding=st.integers(0, 3),
)
def test_random_crop_is_a_window_of_the_padded_image(seed, height, width, padding):
  image = make_image((height, width, 1))
  rng = np.random.default_rng(seed)
  cut = apply("random_crop", image, rng, size=3, padding=padding)
  padded = np.zeros((height + 2 * padding, width + 2 * padding), np.uint8)
  padded[padding : padding + height, padding : padding + width] = image[..., 0]
  windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))
  assert (windows == cut[..., 0]).all((-1, -2)).any()


def test_random_crop_reaches_every_position_equally_often():
  image = np.arange(9, dtype=np.uint8).reshape(3, 3, 1)
  rng = np.random.default_rng(0)
  seen = [apply("random_crop", image, rng, size=1).item() for _ in range(1800)]
  counts = np.bincount(seen, minlength=9)
  # Within five stds of 200: sqrt(1800 * 1/9 * 8/9) = 13.3
  assert np.abs(counts - 200).max() < 67


@given(seed=st.integers(0, 10_000), height=st.integers(2, 60), width=st.integers(2, 60))
def test_random_resized_crop_stays_in_bounds(seed, height, width):
  # Pixels that encode their position: what bilinear filtering makes of a window of such
  # a ramp lies within the window.
  rows = np.linspace(0, 1, height, dtype=np.float32)[:, None].repeat(width, 1)
  columns = np.linspace(0, 1, width, dtype=np.float32)[None].repeat(height, 0)
  image = np.stack([rows, columns], -1)
  rng = np.random.default_rng(seed)
  cut = apply("random_resized_crop", image, rng, size=(5, 7), method="bilinear")
  assert cut.shape == (5, 7, 2) and cut.dtype == np.float32
  assert -1e-5 <= cut.min() and cut.max() <= 1 + 1e-5
  assert (np.diff(cut[..., 0], axis=0) > -1e-5).all()
  assert (np.diff(cut[..., 1], axis=1) > -1e-5).all()


def test_random_resized_crop_keeps_scale_and_ratio():
  # With nearest-neighbor sampling at a fine size, the first and last pixel of a
  # ramp give the window.
  size = 200
  rows, columns = np.meshgrid(*[np.arange(size, dtype=np.float32)] * 2, indexing="ij")
  image = np.stack([rows, columns], -1)
  shares, ratios = [], []
  for seed in range(300):
    cut = apply(
      "random_resized_crop",
      image,
      np.random.default_rng(seed),
      size=400,
      scale=(0.2, 0.5),
      ratio=(0.5, 2.0),
      method="nearest",
    )
    height, width = cut[-1, -1] - cut[0, 0] + 1
    shares.append(height * width / size**2)
    ratios.append(width / height)
  assert 0.19 < min(shares) < 0.22 and 0.48 < max(shares) < 0.51
  assert 0.49 < min(ratios) < 0.55 and 1.8 < max(ratios) < 2.03
  assert abs(np.mean(np.log(ratios))) < 0.1


@pytest.mark.parametrize("shape", [(1, 100), (100, 1), (3, 200)])
def test_random_resized_crop_of_extreme_shapes(shape):
  image = make_image((*shape, 3))
  rng = np.random.default_rng(0)
  cut = apply("random_resized_crop", image, rng, size=4, scale=(1.0, 1.0))
  assert cut.shape == (4, 4, 3)


def test_random_flip():
  image = make_image()
  mirrored = np.stack([image[:, 9 - x] for x in range(10)], axis=1)
  rng = np.random.default_rng(0)
  flips = 0
  for _ in range(400):
    result = apply("random_flip", image, rng, prob=0.25)
    flips += np.array_equal(result, mirrored)
    assert np.array_equal(result, mirrored) or np.array_equal(result, image)
  assert 60 < flips < 140


@given(seed=st.integers(0, 1000), channels=st.integers(1, 4))
def test_random_erasing_erases_one_rectangle(seed, channels):
  image = np.full((20, 30, channels), 100, np.float32)
  rng = np.random.default_rng(seed)
  result = apply("random_erasing", image, rng, prob=1.0)
  erased = (result != 100).all(-1)
  rows, columns = np.flatnonzero(erased.any(1)), np.flatnonzero(erased.any(0))
  height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
  assert erased.sum() == height * width
  # Rounded to whole pixels on either side.
  assert 0.01 * 600 < erased.sum() < 0.4 * 600
  assert np.abs(result[erased]).max() < 7
  kept = apply("random_erasing", image, rng, prob=0.0)
  np.testing.assert_array_equal(kept, image)


def test_random_erasing_is_normal_noise():
  image = np.full((200, 200, 3), 100, np.float32)
  rng = np.random.default_rng(0)
  result = apply("random_erasing", image, rng, prob=1.0, scale=(0.3, 0.3))
  noise = result[result != 100]
  assert abs(noise.mean()) < 0.03 and abs(noise.std() - 1) < 0.03


@pytest.mark.parametrize("channels", [1, 3])
@settings(max_examples=60)
@given(seed=st.integers(0, 10_000))
def test_rand_augment_keeps_the_form(channels, seed):
  image = make_image((12, 10, channels))
  rng = np.random.default_rng(seed)
  result = apply("rand_augment", image, rng, prob=1.0, num_ops=3)
  assert result.shape == image.shape and result.dtype == np.uint8


def test_rand_augment_operations():
  from maskjax.data.augment import _OPERATIONS

  image = make_image((10, 10, 3))
  picture = Image.fromarray(image)
  level = image.astype(int)

  def run(name, strength, sign=1, fill=128):
    return np.asarray(_OPERATIONS[name](picture, strength, sign, fill)).astype(int)

  np.testing.assert_array_equal(run("invert", 0.9), 255 - level)
  # 4 - int(3.6) = 1 bit is kept
  np.testing.assert_array_equal(run("posterize", 0.9), level & 0b1000_0000)
  np.testing.assert_array_equal(run("posterize", 1.0), level & 0b1000_0000)
  # the threshold is 256 - int(230.4)
  np.testing.assert_array_equal(
    run("solarize", 0.9), np.where(level < 26, level, 255 - level)
  )
  np.testing.assert_array_equal(
    run("solarize_add", 0.5), np.where(level < 128, np.minimum(level + 55, 255), level)
  )
  # a factor of 1 - 0.9 * 0.5, toward black
  assert np.abs(run("brightness", 0.5, -1) - level * 0.55).max() <= 1
  moved = run("translate_x", 1 / 0.45 / 10)  # by one of ten pixels
  np.testing.assert_array_equal(moved[:, :-1], level[:, 1:])
  np.testing.assert_array_equal(moved[:, -1], 128)
  moved = run("translate_y", 2 / 0.45 / 10, -1, fill=7)
  np.testing.assert_array_equal(moved[2:], level[:-2])
  np.testing.assert_array_equal(moved[:2], 7)
  for name in ("rotate", "shear_x", "shear_y", "color", "contrast", "sharpness"):
    np.testing.assert_array_equal(run(name, 0.0), level)
    assert (run(name, 0.9) != level).any()


def test_trivial_augment_operations():
  from maskjax.data.augment import _WIDE

  image = make_image((10, 40, 3))
  picture = Image.fromarray(image)
  level = image.astype(int)

  def run(name, strength, sign=1, fill=0):
    return np.asarray(_WIDE[name](picture, strength, sign, fill)).astype(int)

  assert len(_WIDE) == 14
  np.testing.assert_array_equal(run("identity", 1.0), level)
  # 8 - 3 bits are kept, and at the greatest strength 2.
  np.testing.assert_array_equal(run("posterize", 0.5), level & 0b1111_1000)
  np.testing.assert_array_equal(run("posterize", 1.0), level & 0b1100_0000)
  np.testing.assert_array_equal(run("solarize", 1.0), 255 - level)
  assert np.abs(run("brightness", 1.0, -1) - level * 0.01).max() <= 1
  moved = run("translate_x", 1.0, fill=(1, 2, 3))  # by 32 pixels
  np.testing.assert_array_equal(moved[:, :8], level[:, 32:])
  assert (moved[:, 8:] == (1, 2, 3)).all()
  for name in ("rotate", "shear_x", "shear_y", "color", "contrast", "sharpness"):
    np.testing.assert_array_equal(run(name, 0.0), level)
    assert (run(name, 1.0) != level).any()


def test_trivial_augment_draws_one_operation(monkeypatch):
  from maskjax.data import augment

  drawn = []
  for name in augment._WIDE:

    def record_it(picture, strength, sign, fill, name=name):
      drawn.append((name, strength, sign))
      return picture

    monkeypatch.setitem(augment._WIDE, name, record_it)
  rng = np.random.default_rng(0)
  for _ in range(600):
    apply("trivial_augment", make_image((2, 2, 1)), rng)
  names, strengths, signs = zip(*drawn, strict=True)
  assert len(drawn) == 600 and len(set(names)) == 14
  assert {round(30 * s, 6) for s in strengths} == set(range(31))
  assert abs(np.mean(signs)) < 0.15


def test_rand_augment_draws_every_operation(monkeypatch):
  from maskjax.data import augment

  drawn = []
  for name in augment._OPERATIONS:

    def record_it(picture, strength, sign, fill, name=name):
      drawn.append((name, strength, sign))
      return picture

    monkeypatch.setitem(augment._OPERATIONS, name, record_it)
  rng = np.random.default_rng(0)
  for _ in range(1500):
    apply("rand_augment", make_image((2, 2, 3)), rng)
  names, strengths, signs = zip(*drawn, strict=True)
  assert len(set(names)) == 15
  # Two operations, each applied half the time.
  assert abs(len(drawn) / 1500 - 1) < 0.1
  # The normal distribution of mean 0.9 and std 0.05, cut off at 1.
  assert max(strengths) == 1 and abs(np.median(strengths) - 0.9) < 0.01
  assert abs(np.mean(signs)) < 0.15


@pytest.mark.parametrize("name", RANDOM)
def test_random_transforms_depend_on_the_generator_alone(name):
  image = make_image((16, 16, 3))

  def run(seed):
    rng = np.random.Generator(np.random.Philox(seed))
    return apply(name, image, rng, **RANDOM[name]).tobytes()

  assert run(1) == run(1)
  assert len({run(seed) for seed in range(20)}) > 1


def test_randomness_is_found_in_the_signature():
  room = maskjax.data.transforms
  functions = [getattr(room, name) for name in room.__all__]
  random = {f.__name__ for f in functions if "rng" in inspect.signature(f).parameters}
  views = {"random_blur", "random_gray", "random_solarize", "second_view", "two_views"}
  assert random == {*RANDOM, *views, "random_erasing"}


@pytest.mark.parametrize(
  ("name", "keywords", "image", "message"),
  [
    ("resize", {"size": 4}, np.zeros((4, 4), np.uint8), r"\[H, W, C\], got uint8 \[4"),
    ("resize", {"size": 4}, np.zeros((4, 4, 1)), "got float64"),
    ("resize", {"size": 2, "method": "cubic"}, make_image(), "did you mean 'bicubic'"),
    ("center_crop", {"size": 9}, make_image(), r"of an image of \(8, 10\): put 'resi"),
    (
      "resize",
      {"size": (4, 4, 3)},
      make_image(),
      r"\(height, width\), got \(4, 4, 3\)",
    ),
    ("to_float", {}, make_image(dtype=np.float32), "uint8"),
    ("normalize", {"mean": 0, "std": 1}, make_image(), "put 'to_float' before"),
    (
      "normalize",
      {"mean": (0.5, 0.5), "std": 1},
      make_image(dtype=np.float32),
      "mean=.* 3 channels",
    ),
  ],
)
def test_mistakes(name, keywords, image, message):
  with pytest.raises(UserError, match=message):
    apply(name, image, **keywords)


def test_mistakes_of_random_transforms():
  rng = np.random.default_rng(0)
  with pytest.raises(UserError, match="before 'to_float'"):
    apply("rand_augment", make_image(dtype=np.float32), rng)
  with pytest.raises(UserError, match="1 or 3 channels"):
    apply("rand_augment", make_image((4, 4, 2)), rng)
  with pytest.raises(UserError, match="after 'normalize'"):
    apply("random_erasing", make_image(), rng)
  with pytest.raises(UserError, match="put 'resize' before"):
    apply("random_crop", make_image(), rng, size=20)
  with pytest.raises(UserError, match=r"needs records with an 'image', got \['x'\]"):
    maskjax.data.random_flip({"x": np.zeros(1)}, rng)


def test_color_jitter_multiplies():
  def run(level, **keywords):
    keywords = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, **keywords}
    image = np.full((2, 2, 3), level, np.uint8)
    image[0, 0] += np.array([20, 0, 0], np.uint8)
    return [
      apply("color_jitter", image, np.random.default_rng(seed), **keywords)
      for seed in range(300)
    ]

  assert all((image[1] == 100).all() for image in run(100))
  levels = np.array([image[1, 1, 0] for image in run(100, brightness=0.4)])
  assert levels.min() < 63 and levels.max() > 137 and abs(levels.mean() - 100) < 3
  spread = np.array([np.ptp(image[0, 0]) for image in run(100, saturation=0.5)])
  assert spread.min() <= 11 and spread.max() >= 29
  away = np.array([int(image[0, 0, 0]) for image in run(100, contrast=0.5)])
  assert away.min() < 114 and away.max() > 126


def second_view(image, seed=0, **keywords):
  still = {"degrees": 0.0, "translate": 0.0, "scale": (1.0, 1.0)}
  transform = bind_transform({"name": "second_view", **still, **keywords})
  record = transform({"image": image}, np.random.default_rng(seed))
  assert record["image"] is image
  return record["image2"]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_second_view_that_did_not_move(channels):
  image = make_image((8, 10, channels))
  np.testing.assert_array_equal(second_view(image), image)


def test_a_second_view_turns_grows_and_moves():
  # A bright square, off the middle.
  image = np.zeros((40, 60, 1), np.uint8)
  image[8:16, 40:48] = 200

  def measure(picture):
    weight = picture[..., 0].astype(float)
    positions = np.stack(np.indices(weight.shape), axis=-1) + 0.5
    middle = (weight[..., None] * positions).sum(axis=(0, 1)) / weight.sum()
    return weight.sum(), middle - np.array([20, 30])

  area, middle = measure(image)
  areas, turns, moves = [], [], []
  for seed in range(60):
    areas.append(measure(second_view(image, seed, scale=(0.5, 2.0)))[0] / area)
    _, (down, right) = measure(second_view(image, seed, degrees=30.0))
    assert abs(np.hypot(down, right) - np.hypot(*middle)) < 0.5
    turns.append(np.degrees(np.arctan2(down, right) - np.arctan2(*middle)))
    moves.append(measure(second_view(image, seed, translate=0.1))[1] - middle)
  sizes = np.sqrt(areas)
  assert 0.45 < sizes.min() < 0.6 and 1.6 < sizes.max() < 2.1
  assert -31 < min(turns) < -20 and 20 < max(turns) < 31
  moves = np.abs(moves)
  assert (moves.max(axis=0) < [4.2, 6.2]).all() and (moves.max(axis=0) > [3, 5]).all()


def test_pairs_are_transformed_together():
  image, other = make_image(), make_image(seed=1)
  record = {"image": image, "image2": other}
  floats = maskjax.data.to_float(record)
  np.testing.assert_array_equal(floats["image2"], other.astype(np.float32) / 255)
  whole = maskjax.data.center_crop(record, size=4)
  assert whole["image"].shape == whole["image2"].shape == (4, 4, 3)
  # What is random is drawn for each: of one picture, two crops.
  record = {"image": image, "image2": image}
  rng = np.random.default_rng(0)
  crops = [maskjax.data.random_crop(record, rng, size=4) for _ in range(20)]
  assert any((crop["image"] != crop["image2"]).any() for crop in crops)
