"""Two views of an image, and the changes of color that set them apart."""

import colorsys

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

import maskjax.data
from maskjax.data import bind_transform
from maskjax.errors import UserError


def make_image(channels=3):
  return np.random.default_rng(0).integers(0, 256, (8, 10, channels), np.uint8)


def apply(name, image, seed=0, **keywords):
  """Applies the transform to a record that it must leave as it was."""
  transform = bind_transform({"name": name, **keywords})
  record = {"image": image.copy(), "label": np.asarray(3)}
  result = transform(record, np.random.default_rng(seed))
  np.testing.assert_array_equal(record["image"], image)
  assert result["label"] == 3
  assert result["image"].shape == image.shape and result["image"].dtype == np.uint8
  return result["image"]


def test_views_are_made_of_one_image_each_by_itself():
  crop = dict(name="random_crop", size=4)
  image = np.arange(100, dtype=np.uint8).reshape(10, 10, 1)
  views = bind_transform(
    dict(name="two_views", first=(crop, "to_float"), second=(crop,))
  )

  def make(seed):
    record = {"image": image, "label": np.asarray(3)}
    return views(record, np.random.default_rng(seed))

  record = make(0)
  assert set(record) == {"image", "image2", "label"}
  assert record["image"].dtype == np.float32 and record["image2"].dtype == np.uint8
  first, second = np.rint(record["image"] * 255), record["image2"]
  assert first.shape == second.shape == (4, 4, 1) and (first != second).any()
  for view in (first, second):
    corner = int(view[0, 0, 0])
    window = image[corner // 10 :, corner % 10 :][:4, :4]
    np.testing.assert_array_equal(view, window)
  again = make(0)
  assert all(np.array_equal(again[key], record[key]) for key in record)
  assert not np.array_equal(make(1)["image2"], second)


def test_further_views_are_small_and_differ():
  image = np.arange(100, dtype=np.uint8).reshape(10, 10, 1)
  crop, small = (dict(name="random_crop", size=size) for size in (4, 3))
  plain = dict(name="two_views", first=(crop,), second=(crop,))
  more = bind_transform({**plain, "local": (small, "to_float"), "num_local": 5})

  def make(views):
    return views({"image": image}, np.random.default_rng(0))

  record, without = make(more), make(bind_transform(plain))
  assert record["local"].shape == (5, 3, 3, 1)
  assert len({view.tobytes() for view in record["local"]}) > 1
  for view in np.rint(record["local"] * 255):
    corner = int(view[0, 0, 0])
    window = image[corner // 10 :, corner % 10 :][:3, :3]
    np.testing.assert_array_equal(view, window)
  # The two others are what they are without.
  assert set(without) == {"image", "image2"}
  assert all(np.array_equal(record[key], without[key]) for key in without)
  for wrong in ({"num_local": 5}, {"local": (small,)}, {"num_local": -1}):
    with pytest.raises(UserError, match="two_views: num_local"):
      make(bind_transform({**plain, **wrong}))


def test_mistakes_in_a_view_are_found_before_any_record_is_read():
  views = dict(name="two_views", first=("to_float",), second=("to_flaot",))
  with pytest.raises(UserError, match="no 'to_flaot'.*did you mean 'to_float'"):
    bind_transform(views)
  views = dict(name="two_views", first=(dict(name="resize", sice=4),), second=())
  with pytest.raises(UserError, match="'resize' takes no 'sice'"):
    bind_transform(views)


def test_a_pipeline_batches_views():
  view = (dict(name="random_crop", size=6), "to_float")
  data = maskjax.data.Pipeline(
    source=maskjax.data.digits(),
    batch_size=4,
    transforms=[bind_transform(dict(name="two_views", first=view, second=view))],
    num_threads=0,
    process_index=0,
    process_count=1,
  )
  with data(0) as batches:
    batch = next(batches)
  assert batch["image"].shape == batch["image2"].shape == (4, 6, 6, 1)
  assert (batch["image"] != batch["image2"]).any(axis=(1, 2, 3)).sum() > 1


@pytest.mark.parametrize(
  ("keyword", "enhancer"),
  [
    ("brightness", ImageEnhance.Brightness),
    ("contrast", ImageEnhance.Contrast),
    ("saturation", ImageEnhance.Color),
  ],
)
def test_color_jitter_is_a_factor_near_one(keyword, enhancer):
  image = make_image()
  others = dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0.0)
  picture = Image.fromarray(image)
  errors = []
  for seed in range(5):
    ours = apply("color_jitter", image, seed, **{**others, keyword: 0.4})
    near = [
      abs(np.asarray(enhancer(picture).enhance(f)).astype(int) - ours).max()
      for f in np.linspace(0.6, 1.4, 801)
    ]
    assert min(near) <= 1
    errors.append(abs(ours.astype(int) - image).max())
  assert max(errors) > 10 and len(set(errors)) > 1


def test_color_jitter_turns_the_hue():
  image = np.full((2, 2, 3), (200, 60, 60), np.uint8)
  others = dict.fromkeys(("brightness", "contrast", "saturation"), 0.0)
  turns = []
  for seed in range(20):
    turned = apply("color_jitter", image, seed, hue=0.1, **others)[0, 0] / 255
    hue, saturation, value = colorsys.rgb_to_hsv(*turned)
    np.testing.assert_allclose((saturation, value), (0.7, 200 / 255), atol=0.02)
    turns.append((hue + 0.5) % 1 - 0.5)
  assert -0.11 < min(turns) < -0.05 and 0.05 < max(turns) < 0.11


def test_gray_takes_the_colors():
  image = make_image()
  gray = apply("random_gray", image, prob=1.0)
  assert (gray == gray[..., :1]).all()
  np.testing.assert_array_equal(
    gray[..., 0], np.asarray(Image.fromarray(image).convert("L"))
  )


def test_blur_is_pillows():
  image = make_image()
  blurred = apply("random_blur", image, prob=1.0, sigma=(2.0, 2.0))
  expected = Image.fromarray(image).filter(ImageFilter.GaussianBlur(2.0))
  np.testing.assert_array_equal(blurred, np.asarray(expected))
  assert blurred.std() < image.std() / 2


def test_solarize_inverts_what_is_bright():
  image = make_image()
  ours = apply("random_solarize", image, prob=1.0)
  np.testing.assert_array_equal(ours, np.where(image < 128, image, 255 - image))


CHANGES = ("color_jitter", "random_blur", "random_gray", "random_solarize")


@pytest.mark.parametrize("name", CHANGES)
def test_how_often(name):
  image = make_image()
  assert (apply(name, image, prob=0.0) == image).all()
  changed = [(apply(name, image, seed, prob=0.3) != image).any() for seed in range(300)]
  assert abs(np.mean(changed) - 0.3) < 5 * 0.46 / np.sqrt(300)


@pytest.mark.parametrize("name", CHANGES)
def test_grey_images(name):
  apply(name, make_image(1), prob=1.0)
  with pytest.raises(UserError, match=f"{name} needs a uint8 image of 1 or 3"):
    apply(name, make_image(2), prob=1.0)
