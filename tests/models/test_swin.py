"""Swin transformers; tests/test_agreement_simmim.py compares them with transformers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.arrays import assert_close, random, shaken

from maskjax.models import BlockOptions, SwinEncoder, swin
from maskjax.models.swin import SwinBlock, across_edges

KEY = jax.random.key(0)


@functools.partial(jax.jit, static_argnames=("window", "shifts", "version"))
def run_block(x, window=3, shifts=False, version=1):
  block = SwinBlock(heads=2, window=window, shifts=shifts, version=version)
  return block.apply({"params": params_of(x.shape[1:3], window, version)}, x)


@functools.cache
def params_of(grid, window, version):
  block = SwinBlock(heads=2, window=window, shifts=False, version=version)
  return shaken(jax.eval_shape(block.init, KEY, jnp.zeros((1, *grid, 4)))["params"])


@pytest.mark.parametrize("shifts", [False, True])
def test_tokens_see_those_of_their_window_alone(shifts):
  """Of 6 x 6 tokens in windows of 3, moved by one where they shift."""
  x = random(1, 6, 6, 4)
  before = np.asarray(run_block(x, shifts=shifts))
  # The windows of each row and column: a shifted one that went over the edge is two.
  parts = [0, 1, 1, 1, 2, 2] if shifts else [0, 0, 0, 1, 1, 1]
  for row, column in ((0, 0), (1, 5), (3, 2), (5, 5)):
    other = x.copy()
    other[0, row, column, 1] += 3
    changed = (np.asarray(run_block(other, shifts=shifts)) != before)[0].any(axis=-1)
    same = np.equal(parts, parts[row])[:, None] & np.equal(parts, parts[column])
    np.testing.assert_array_equal(changed, same)


def test_regions_are_those_of_the_paper():
  """Figure 4: the last window holds four parts that do not see each other."""
  apart = across_edges((6, 6), 3, 1)
  assert not apart[0].any()
  parts = [[0, 0, 1], [0, 0, 1], [2, 2, 3]]
  expected = np.ravel(parts)[:, None] != np.ravel(parts)
  np.testing.assert_array_equal(apart[3], expected)
  assert apart[1].sum() == apart[2].sum() == 2 * 3 * 6


def test_windows_as_large_as_the_grid_do_not_shift():
  x = random(1, 3, 3, 4)
  still, moved = (run_block(x, shifts=shifts) for shifts in (False, True))
  np.testing.assert_array_equal(still, moved)
  # And larger ones are as large as the grid.
  np.testing.assert_array_equal(run_block(x, window=3), run_block(x, window=5))


def test_branches_of_the_second_version_begin_as_nothing():
  block = SwinBlock(heads=2, window=3, shifts=False, version=2)
  x = random(1, 3, 3, 4)
  made = jax.jit(block.init)(KEY, x)
  np.testing.assert_array_equal(jax.jit(block.apply)(made, x), x)


def test_filled_up_grids_have_gradients():
  """The padding's keys are 0, whose length has none."""
  params = params_of((4, 4), 3, 2)
  block = SwinBlock(heads=2, window=3, shifts=True, version=2)
  gradient = jax.jit(
    jax.grad(lambda params, x: block.apply({"params": params}, x).sum(), (0, 1))
  )(params, random(1, 4, 4, 4))
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_cosines_are_scaled_by_no_more_than_100():
  params = jax.tree.map(lambda leaf: leaf.copy(), params_of((6, 6), 3, 2))

  @jax.jit
  def run(params):
    block = SwinBlock(heads=2, window=3, shifts=False, version=2)
    return block.apply({"params": params}, random(1, 6, 6, 4))

  params["attention"]["logit_scale"][:] = np.log(100)
  most = run(params)
  params["attention"]["logit_scale"][:] = 9
  np.testing.assert_array_equal(run(params), most)
  params["attention"]["logit_scale"][:] = 4
  assert np.abs(run(params) - most).max() > 1e-3


@functools.partial(jax.jit, static_argnums=1)
def encode(patches, options):
  encoder = SwinEncoder(
    grid=(6, 10), width=4, depths=(1, 1), heads=(2, 2), window=2, **dict(options)
  )
  params = shaken(jax.eval_shape(encoder.init, KEY, patches)["params"])
  return encoder.apply({"params": params}, patches), params


def test_oblong_grids_remat_and_bfloat16():
  patches = random(2, 60, 5)
  tokens, _ = encode(patches, ())
  assert tokens.shape == (2, 15, 8) and tokens.dtype == jnp.float32
  usual = BlockOptions(norm_epsilon=1e-5)
  again, _ = encode(patches, (("options", usual.replace(remat="full")),))
  assert_close(again, tokens)
  half, params = encode(patches, (("options", usual.replace(dtype="bfloat16")),))
  assert half.dtype == jnp.bfloat16
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
  # Eight bits, over two blocks.
  assert 1e-4 < np.abs(half - tokens).max() / np.abs(tokens).max() < 0.1


def test_the_tokens_themselves_are_normalised_in_large_ones():
  tokens, params = encode(random(2, 60, 5), (("norm_every", 1),))
  norms = {name for name in params if "norm" in name}
  assert norms == {"embed_norm", "norm", "stage_0_norm_0", "stage_1_norm_0"}
  assert np.abs(tokens - encode(random(2, 60, 5), ())[0]).max() > 0.1


def test_merging_takes_its_zeros_from_below_and_from_the_right():
  """https://arxiv.org/abs/2103.14030, section 3.1, in NumPy."""
  x = random(1, 3, 3, 2)
  merging = swin.PatchMerging()
  params = shaken(jax.eval_shape(merging.init, KEY, x)["params"])
  ours = jax.jit(merging.apply)({"params": params}, x)
  full = np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0))).astype(np.float64)
  corners = [full[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
  joined = np.concatenate(corners, axis=-1)
  centered = joined - joined.mean(axis=-1, keepdims=True)
  normed = centered / np.sqrt((centered**2).mean(axis=-1, keepdims=True) + 1e-5)
  normed = normed * params["norm"]["scale"] + params["norm"]["bias"]
  assert_close(ours, normed @ params["dense"]["kernel"])
