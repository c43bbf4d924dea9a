"""Teachers and tokenizers see images as they were trained with."""

import numpy as np
import pytest
from helpers.arrays import assert_close, random

from maskjax import recipes
from maskjax.errors import UserError
from maskjax.objectives import teachers, tokenizers
from maskjax.objectives.recolor import recolor
from maskjax.tokens import patchify


def patches_alone(**more):
  """A teacher whose features are the patches that it sees."""
  return teachers.frozen(objective={"name": "helpers.objectives:patches"}, **more)


def test_a_teacher_has_its_own_statistics():
  pixels = np.abs(random(2, 4, 4, 3))  # as they would be in a file
  own, given = (
    (np.asarray(colors["mean"]), np.asarray(colors["std"]))
    for colors in (recipes.CLIP_COLORS, recipes.SIGNED_COLORS)
  )
  teacher = patches_alone(
    colors=recipes.CLIP_COLORS, batch_colors=recipes.SIGNED_COLORS
  )
  batch = {"image": ((pixels - given[0]) / given[1]).astype(np.float32)}
  found = teacher.features(None, None, batch)
  assert_close(found, patchify((pixels - own[0]) / own[1], 2))
  assert_close(patches_alone().features(None, None, batch), patchify(batch["image"], 2))


def test_a_tokenizer_has_its_own_statistics():
  objective = {"name": "helpers.objectives:signs"}
  changed = tokenizers.frozen(
    objective=objective,
    colors=dict(mean=0.2, std=0.25),
    batch_colors=dict(mean=0.5, std=0.5),
  )
  batch = {"image": random(2, 4, 4, 1)}
  found = changed.codes(None, batch)
  pixels = batch["image"].reshape(2, 16) * 0.5 + 0.5
  np.testing.assert_array_equal(found, pixels > 0.2)
  plain = tokenizers.frozen(objective=objective).codes(None, batch)
  np.testing.assert_array_equal(plain, pixels > 0.5)


def test_a_recipe_knows_the_statistics_of_a_setting():
  spec = recipes.frozen(
    "configs/image/teacher.py:clip_b16",
    workdir="runs/clip_b16",
    batch_colors=recipes.COLORS,
  )
  assert dict(spec["colors"]) == recipes.CLIP_COLORS
  assert spec["batch_colors"] == recipes.COLORS
  plain = recipes.frozen("configs/image/teacher.py:clip_b16", workdir="runs/clip_b16")
  assert "colors" not in plain


@pytest.mark.parametrize(
  "colors, batch_colors, message",
  [
    (dict(mean=0.5, std=0.5), None, "batch_colors=None: expected a mean and a posit"),
    (None, dict(mean=0.5, std=0.5), "^colors=None: expected a mean and a positive std"),
    (dict(mean=0.5, std=0), dict(mean=0.5, std=1), "colors=.*'std': 0}: expected"),
    (dict(mean=0.5), dict(mean=0.5, std=1), "^colors={'mean': 0.5}: expected a mean"),
    (
      dict(mean=(0.5,) * 3, std=(0.5,) * 3),
      dict(mean=(0.5,) * 2, std=1),
      "expected one value, or as many as there are channels",
    ),
  ],
)
def test_colors_that_do_not_fit_are_named(colors, batch_colors, message):
  with pytest.raises(UserError, match=message):
    recolor(colors, batch_colors)
