"""Masks: the one convention, and what a mask may depend on."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from maskjax import keys, masking, sharding
from maskjax.errors import UserError

INDEX = np.array([3, 900, 0, 41, 7, 8, 12, 60_000])

# Grids of each rank, and counts from one masked to one visible.
CASES = [((13,), 12), ((3, 5), 1), ((6, 4), 18), ((2, 1, 4), 4)]


@functools.partial(jax.jit, static_argnames=("grid", "num_masked"))
def draw(example_keys, grid=(4, 5), num_masked=13):
  return masking.draw(masking.random, example_keys, grid, num_masked=num_masked)


def keys_of(index, seed=0):
  return keys.example_keys(jax.random.key(seed), {"index": jnp.asarray(index)})


def assert_same(ours, theirs):
  jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@functools.partial(jax.jit, static_argnames=("grid", "num_masked"))
def draw_and_restore(example_keys, tokens, grid, num_masked):
  mask = draw(example_keys, grid, num_masked)
  shown, gone = mask.take_visible(tokens), mask.take_masked(tokens)
  return mask, shown, gone, mask.restore(shown, gone)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(case=st.sampled_from(CASES), seed=st.integers(0, 2**31))
def test_the_convention_holds(case, seed):
  (grid, num_masked), length = case, math.prod(case[0])
  tokens = np.random.default_rng(seed).normal(size=(3, length, 2)).astype(np.float32)
  example_keys = jax.random.split(jax.random.key(seed), 3)
  mask, shown, gone, restored = jax.device_get(
    draw_and_restore(example_keys, tokens, grid, num_masked)
  )
  assert mask.masked.dtype == bool
  assert {mask.visible_ids.dtype, mask.masked_ids.dtype, mask.restore_ids.dtype} == {
    jnp.dtype("int32")
  }
  np.testing.assert_array_equal(mask.masked.sum(axis=1), [num_masked] * 3)
  for row in range(3):
    # Ascending, disjoint and together complete.
    visible_ids = np.flatnonzero(~mask.masked[row])
    masked_ids = np.flatnonzero(mask.masked[row])
    np.testing.assert_array_equal(mask.visible_ids[row], visible_ids)
    np.testing.assert_array_equal(mask.masked_ids[row], masked_ids)
    positions = np.concatenate([visible_ids, masked_ids])
    np.testing.assert_array_equal(positions[mask.restore_ids[row]], range(length))
    np.testing.assert_array_equal(shown[row], tokens[row, visible_ids])
    np.testing.assert_array_equal(gone[row], tokens[row, masked_ids])
  np.testing.assert_array_equal(restored, tokens)


@pytest.mark.parametrize("shape", [(2, 5), (2, 5, 2, 2)])
def test_gather_is_numpys(shape):
  tokens = np.random.default_rng(0).normal(size=shape).astype(np.float32)
  ids = np.array([[4, 0, 0], [1, 3, 2]])
  expected = np.stack([tokens[row][ids[row]] for row in range(2)])
  np.testing.assert_array_equal(masking.gather(jnp.asarray(tokens), ids), expected)


def test_random_is_the_papers_shuffle():
  """MAE's own order: shuffle by noise, keep the first, mask the rest."""
  example_keys = keys_of(INDEX)
  mask = draw(example_keys)
  noise = np.asarray(jax.vmap(lambda key: jax.random.uniform(key, (20,)))(example_keys))
  for row in range(len(INDEX)):
    ids_shuffle = np.argsort(noise[row])
    expected = np.ones(20, bool)
    expected[ids_shuffle[:7]] = False
    np.testing.assert_array_equal(mask.masked[row], expected)


def test_random_is_uniform():
  """Each token, and each pair of tokens, is masked as often as any other.

  By Hoeffding's inequality a frequency of K draws is off by more than t with a
  probability of at most 2 exp(-2 K t^2); t is such that all 55 frequencies of a
  uniform sampler stay within it but once in 10^9 seeds.
  """
  length, num_masked, draws = 10, 7, 20_000
  masked = draw(jax.random.split(jax.random.key(3), draws), (2, 5), num_masked).masked
  masked = np.asarray(masked, np.float64)
  together = masked.T @ masked / draws
  bound = math.sqrt(math.log(2 * 55 / 1e-9) / (2 * draws))
  assert bound < 0.03
  each = num_masked / length
  pair = each * (num_masked - 1) / (length - 1)
  expected = np.where(np.eye(length, dtype=bool), each, pair)
  np.testing.assert_allclose(together, expected, rtol=0, atol=bound)


def test_masks_differ_by_example_and_by_key():
  masked = np.asarray(draw(keys_of(INDEX)).masked)
  assert len(np.unique(masked, axis=0)) == len(INDEX)
  other = np.asarray(draw(keys_of(INDEX, seed=1)).masked)
  assert (masked != other).any(axis=1).all()


def test_a_mask_does_not_depend_on_its_batch():
  whole = draw(keys_of(INDEX))
  order = np.array([5, 0, 7, 2, 1, 6, 4, 3])
  assert_same(draw(keys_of(INDEX[order])), jax.tree.map(lambda x: x[order], whole))
  for size in (1, 4):
    split = [draw(keys_of(INDEX[i : i + size])) for i in range(0, 8, size)]
    assert_same(jax.tree.map(lambda *rows: np.concatenate(rows), *split), whole)
  # The other rows of the batch do not matter either.
  mixed = draw(keys_of(np.r_[INDEX[:4], 1, 2, 5, 6]))
  assert_same(
    jax.tree.map(lambda x: x[:4], mixed), jax.tree.map(lambda x: x[:4], whole)
  )


def test_a_mask_does_not_depend_on_its_microbatch():
  @jax.jit
  def in_parts(index):
    # [B] -> [B / 4, 4] -> [4, B / 4], as the training step splits a batch
    parts = index.reshape(-1, 4).swapaxes(0, 1)
    return jax.lax.map(lambda part: draw(keys_of(part)), parts)

  parts = in_parts(INDEX)
  joined = jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(8, -1), parts)
  assert_same(joined, draw(keys_of(INDEX)))


def test_a_mask_does_not_depend_on_the_devices():
  drawn = []
  for count in (1, 8):
    mesh = sharding.make_mesh(devices=jax.devices()[:count])
    index = sharding.global_batch(mesh, {"index": INDEX})["index"]
    with jax.set_mesh(mesh):
      mask = jax.jit(lambda index: draw(keys_of(index)))(index)
    assert len(mask.masked.sharding.device_set) == count
    assert count == 1 or not mask.masked.sharding.is_fully_replicated
    drawn.append(jax.device_get(mask))
  assert_same(*drawn)


def test_a_batch_without_index_counts_its_rows():
  key = jax.random.key(0)
  counted = keys.example_keys(key, {"image": jnp.zeros((8, 2, 2, 1))})
  np.testing.assert_array_equal(
    jax.random.key_data(counted), jax.random.key_data(keys_of(range(8)))
  )


@given(length=st.integers(2, 2000), ratio=st.floats(1e-3, 1 - 1e-3))
@settings(deadline=None, max_examples=200, derandomize=True)
@example(length=100, ratio=0.9)  # 100 * (1 - 0.9) is a little below 10
@example(length=10, ratio=0.9)  # and 10 * (1 - 0.9) below 1
def test_num_masked_keeps_as_many_as_mae(length, ratio):
  len_keep = int(length * (1 - ratio))  # models_mae.py, random_masking
  if len_keep == 0:
    with pytest.raises(UserError, match=f"masks {length} of {length} tokens"):
      masking.num_masked(length, ratio)
  else:
    assert masking.num_masked(length, ratio) == length - len_keep


@pytest.mark.parametrize(
  ("length", "ratio", "expected"),
  [(196, 0.75, 147), (256, 0.75, 192), (16, 0.75, 12), (196, 0.6, 118), (100, 0.9, 91)],
)
def test_num_masked_of_known_cases(length, ratio, expected):
  assert masking.num_masked(length, ratio) == expected


@pytest.mark.parametrize("ratio", [0, 1, -0.1, 1.5, float("nan")])
def test_ratios_outside_0_and_1(ratio):
  with pytest.raises(UserError, match=f"mask_ratio={ratio}: expected a number between"):
    masking.num_masked(16, ratio)


@pytest.mark.parametrize(("ratio", "masked"), [(0.9, 4), (1e-20, 0)])
def test_ratios_that_leave_nothing_to_do(ratio, masked):
  with pytest.raises(UserError, match=f"mask_ratio={ratio} masks {masked} of 4"):
    masking.num_masked(4, ratio)


@pytest.mark.parametrize(
  ("output", "found"),
  [
    (jnp.zeros(6), r"float32\[2, 6\]"),
    (jnp.zeros(6, jnp.int32), r"int32\[2, 6\]"),
    (jnp.zeros(5, bool), r"bool\[2, 5\]"),
    (jnp.zeros((2, 3), bool), r"bool\[2, 2, 3\]"),
  ],
)
def test_samplers_that_give_something_else(output, found):
  with pytest.raises(UserError, match=rf"returned {found}: expected bool\[2, 6\]"):
    masking.draw(lambda *_: output, keys_of(range(2)), (2, 3), num_masked=3)


# The rank of the grid

TWO_AXES = [
  masking.MultiBlock(),
  *(
    getattr(masking, name)
    for name in ("blockwise", "blue", "green", "inverse_block", "purple", "red")
  ),
]


@pytest.mark.parametrize("grid", [(12,), (4, 6), (2, 4, 6), (2, 2, 2, 6)])
@pytest.mark.parametrize("sampler", [masking.random, masking.aligned])
def test_grids_of_any_rank(sampler, grid):
  unit = 2 ** len(grid) if sampler is masking.aligned and grid != (12,) else 2
  count = unit * (math.prod(grid) // unit // 2)
  masked = sampler(jax.random.key(0), grid, count)
  assert masked.shape == (math.prod(grid),) and masked.sum() == count


@pytest.mark.parametrize("grid", [(12,), (2, 4, 6)])
@pytest.mark.parametrize("sampler", TWO_AXES)
def test_samplers_that_need_rows_and_columns(sampler, grid):
  message = rf"masks.*: expected a grid of rows and columns, not \({grid[0]},"
  with pytest.raises(UserError, match=message):
    sampler(jax.random.key(0), grid, 6)


def test_every_sampler_is_checked_for_its_rank():
  checked = {sampler.__name__ for sampler in TWO_AXES[1:]}
  assert checked | {"random", "aligned"} == set(masking.samplers.__all__)


# Blocks


@functools.partial(jax.jit, static_argnames=("grid", "num_masked", "options"))
def draw_blocks(seeds, grid, num_masked, options=()):
  def one(seed):
    key = jax.random.key(seed)
    return masking.blockwise(key, grid, num_masked, **dict(options))

  return jax.vmap(one)(seeds)


def neighbors(masked, grid):
  """Share of the pairs of neighbors that are both masked or both visible."""
  table = np.asarray(masked).reshape(-1, *grid)
  pairs = [(table[:, 1:], table[:, :-1]), (table[:, :, 1:], table[:, :, :-1])]
  return np.mean(np.concatenate([(a == b).ravel() for a, b in pairs]))


@pytest.mark.parametrize(
  ("grid", "num_masked", "least"), [((14, 14), 75, 16), ((7, 7), 20, 4)]
)
def test_blocks_mask_the_number_given_in_rectangles(grid, num_masked, least):
  masked = draw_blocks(np.arange(512), grid, num_masked, (("min_patches", least),))
  masked = np.asarray(masked)
  np.testing.assert_array_equal(masked.sum(axis=1), num_masked)
  assert len(np.unique(masked, axis=0)) > 256
  one_by_one = draw(keys_of(np.arange(512)), grid, num_masked).masked
  assert neighbors(masked, grid) > neighbors(one_by_one, grid) + 0.1
  # Every token is masked in some, none in all.
  share = masked.mean(axis=0)
  assert 0 < share.min() and share.max() < 1


def test_blocks_of_one_aspect_are_squares():
  """One rectangle of 16 is all there is to mask."""
  options = (("min_patches", 16), ("min_aspect", 1.0))
  masked = np.asarray(draw_blocks(np.arange(16), (8, 8), 16, options))
  for table in masked.reshape(-1, 8, 8):
    rows, columns = np.nonzero(table.any(axis=1))[0], np.nonzero(table.any(axis=0))[0]
    assert len(rows) == len(columns) == 4
    assert np.ptp(rows) == np.ptp(columns) == 3


def test_blocks_for_fewer_tokens_than_the_least_area():
  """Areas are between the two numbers then; and of those that do not fit, few or many.

  As in BEiT's code, whose uniform numbers take their bounds in any order.
  """
  options = (("min_patches", 16), ("min_aspect", 1.0))
  shares = []
  for attempts in (1, 200):
    given = (*options, ("attempts", attempts))
    masked = np.asarray(draw_blocks(np.arange(256), (14, 14), 4, given))
    np.testing.assert_array_equal(masked.sum(axis=1), 4)
    tables = masked.reshape(-1, 14, 14)
    squares = (tables.any(axis=1).sum(axis=1) == 2) & (tables.any(axis=2).sum(1) == 2)
    shares.append(squares.mean())
  # Of areas from 4 to 16, those below 6.25 have sides that round to 2.
  assert 0.1 < shares[0] < 0.3 and shares[1] == 1


# Units


@functools.partial(jax.jit, static_argnames=("grid", "num_masked", "unit"))
def draw_units(seeds, grid, num_masked, unit):
  def one(seed):
    return masking.aligned(jax.random.key(seed), grid, num_masked, unit=unit)

  return jax.vmap(one)(seeds)


@pytest.mark.parametrize(
  ("grid", "unit", "num_masked"),
  [((14, 14), 2, 120), ((4, 6), (2, 3), 12), ((12,), 3, 6), ((2, 4, 4), (1, 2, 2), 20)],
)
def test_units_are_masked_whole(grid, unit, num_masked):
  sides = (unit,) * len(grid) if isinstance(unit, int) else unit
  masked = np.asarray(draw_units(np.arange(200), grid, num_masked, unit))
  np.testing.assert_array_equal(masked.sum(axis=1), num_masked)
  tables = masked.reshape(200, *grid)
  corners = tables[(slice(None), *(slice(None, None, side) for side in sides))]
  whole = np.kron(corners, np.ones((1, *sides), bool)).astype(bool)
  np.testing.assert_array_equal(tables, whole)
  # Each unit as often as any other; Hoeffding's bound, see `test_random_is_uniform`.
  bound = math.sqrt(math.log(2 * 49 / 1e-9) / (2 * 200))
  share = num_masked / math.prod(grid)
  np.testing.assert_allclose(masked.mean(axis=0), share, rtol=0, atol=bound)
  assert len(np.unique(masked, axis=0)) > 1


@pytest.mark.parametrize(
  ("grid", "unit", "ratio", "expected"),
  [
    ((14, 14), 2, 0.6, 120),  # 29.4 of 49 units
    ((48, 48), 8, 0.6, 1408),  # 21.6 of 36
    ((5, 5), 1, 0.8, 20),  # exactly; MAE's way to count gives 21
    ((4, 6), (2, 3), 0.01, 6),
  ],
)
def test_units_are_counted_up(grid, unit, ratio, expected):
  assert masking.num_masked_in_units(grid, unit, ratio) == expected


@pytest.mark.parametrize("ratio", [0, 1, -0.1, 0.99, float("nan")])
def test_ratios_that_leave_no_unit_visible(ratio):
  with pytest.raises(UserError, match=f"mask_ratio={ratio}: .*one of 49 units visible"):
    masking.num_masked_in_units((14, 14), 2, ratio)


@pytest.mark.parametrize(
  ("unit", "sides"),
  [(4, "4x4"), ((2, 3), "2x3"), (0, "0x0"), ((2,), "2"), ((2, 2, 2), "2x2x2")],
)
def test_units_that_do_not_fit_the_grid(unit, sides):
  message = f"units of {sides} tokens do not divide the grid of 14x14"
  with pytest.raises(UserError, match=message):
    masking.aligned(jax.random.key(0), (14, 14), 4, unit=unit)
  with pytest.raises(UserError, match=message):
    masking.num_masked_in_units((14, 14), unit, 0.6)


def test_counts_that_units_do_not_make():
  with pytest.raises(UserError, match="num_masked=147: expected a multiple of 4"):
    masking.aligned(jax.random.key(0), (14, 14), 147, unit=2)


def test_a_subset_of_the_masked_tokens_is_drawn_uniformly():
  masked = jnp.array([[1, 0, 1, 1, 0, 1]], bool).repeat(2000, axis=0)
  mask = masking.Mask.exactly(masked, num_masked=4)
  some = mask.subset(jax.random.split(jax.random.key(0), 2000), 2)
  assert some.masked_ids.shape == (2000, 2)
  assert (np.diff(some.masked_ids, axis=1) > 0).all()
  counts = np.bincount(np.ravel(some.masked_ids), minlength=6)
  assert (counts[[1, 4]] == 0).all()
  # Of mean 1000 and std 22.
  assert (abs(counts[[0, 2, 3, 5]] - 1000) < 110).all()
  np.testing.assert_array_equal(some.visible_ids, mask.visible_ids)
  np.testing.assert_array_equal(some.masked, mask.masked)
