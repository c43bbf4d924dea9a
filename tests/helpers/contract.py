"""What every system keeps to, whatever it learns: one check for all of them.

Each system's small setting is built with two blocks, without dropped paths, and checked
on four real examples. Teachers and tokenizers keep random arrays.
"""

import functools
import json
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits

from maskjax import config as configs
from maskjax import data, objectives, resolve, sharding, systems
from maskjax.data.configured import bind_transform
from maskjax.errors import UserError
from maskjax.models import stack_blocks
from maskjax.objectives import Step, Variables, abilities_of
from maskjax.objectives.abilities import RANDOM
from maskjax.training import optimizers

ROWS = 4
KEY = jax.random.key(11)
STEP = Step(jax.random.key(12), number=3, num_steps=10)

# Systems whose examples share a computation, and what it is: the parts of a batch do
# not add up to the whole, and what does not count is seen by what does.
SHARED = {
  "attmask": "Sinkhorn's iteration over the batch",
  "capi": "Sinkhorn's iteration over the batch",
  "selfie": "normalization by the batch",
  "spark": "normalization by the batch",
}
# Arrays that are not drawn around 0: of normalizations, and of codebooks.
NEAR_ONE = ("scale", "variance", "counts")
FAMILIES = systems.families()

# Checks go system by system, and what one has compiled is of no use to the next.
recent = functools.lru_cache(maxsize=4)


def names(family: str) -> list[str]:
  return [name for name, its in FAMILIES.items() if its == family]


def small(name: str, **changes: Any) -> Any:
  """The config of a system's small setting, with fewer blocks and nothing dropped."""
  config = configs.load(
    f"configs/{FAMILIES[name]}/{name}.py:small"
  ).copy_and_resolve_references()
  objective = config.objective
  for key in ("drop_path", "dropout", "attention_dropout", "decoder_dropout"):
    if key in objective:
      objective[key] = 0.0
  random_teachers(objective)
  with objective.unlocked():
    if FAMILIES[name] == "text":
      changes = {"vocab_size": config.data.test.tokenizer.size, **changes}
    objective.update(changes)
  for part in nested(objective):
    if part.get("encoder", {}).get("depth", 0) > 2:
      depth, part.encoder.depth = part.encoder.depth, 2
      try:
        resolve.build(objectives, objective)
      except UserError:  # it needs a block that is not there
        part.encoder.depth = depth
  return config


def nested(config: Any) -> Iterator[Any]:
  """A config and those inside it."""
  yield config
  for value in config.values():
    if isinstance(value, configs.ConfigDict):
      yield from nested(value)


def random_teachers(objective: Any) -> None:
  """Leaves the teachers and tokenizers of an objective as they are made."""
  for part in nested(objective):
    if "workdir" in part:
      part.workdir = RANDOM


@recent
def build(name: str, **changes: Any) -> Any:
  return resolve.build(objectives, small(name, **changes).objective)


@recent
def batch(name: str) -> dict[str, jax.Array]:
  """Four examples of the setting's held-out text, or four digits of its size."""
  config = small(name)
  if FAMILIES[name] == "text":
    rows = held_out_text(json.dumps(config.data.test.to_dict(), sort_keys=True))
    found = {key: column[:ROWS] for key, column in rows.items()}
  else:
    images, labels = load_digits(return_X_y=True)
    grown = np.kron(images[:ROWS].reshape(-1, 8, 8) * 15, np.ones((3, 3)))
    grown = np.pad(grown, ((0, 0), (2, 2), (2, 2)))[..., None].astype(np.uint8)
    source = data.arrays(image=grown, label=labels[:ROWS])
    transforms = [bind_transform(t) for t in config.data.train_transforms]
    pipeline = data.Pipeline(
      source=source,
      batch_size=ROWS,
      transforms=transforms,
      shuffle=False,
      num_threads=0,
    )
    with pipeline(0) as batches:
      found = dict(next(batches))
  wanted = (*batch_shapes(name), "image2")
  found = {key: rows for key, rows in found.items() if key in wanted}
  found["index"] = np.arange(ROWS)
  found["valid"] = np.ones(ROWS, bool)
  return {key: jnp.asarray(rows) for key, rows in found.items()}


@functools.cache
def held_out_text(source: str) -> Any:
  """The columns of a source of text, given as JSON: most settings share one."""
  return resolve.build(data.sources, json.loads(source)).columns


def batch_shapes(name: str) -> dict[str, jax.ShapeDtypeStruct]:
  return abilities_of(build(name)).batch_shapes(ROWS)


@recent
def variables(name: str) -> Variables:
  """Variables of the shapes of fresh ones, drawn at random: no branch is silent.

  Of the batches that plans assume, and in NumPy, since compiling an `init` takes longer
  than compiling a gradient.
  """
  shapes = jax.eval_shape(build(name).init, KEY, batch_shapes(name))
  rng = np.random.default_rng(0)

  def drawn(path: Any, leaf: jax.ShapeDtypeStruct) -> jax.Array:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      return KEY
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
      return jnp.zeros(leaf.shape, leaf.dtype)
    mean = 1.0 if getattr(path[-1], "key", "") in NEAR_ONE else 0.0
    fan_in = np.prod(leaf.shape[:-1]) if len(leaf.shape) > 1 else 2500
    std = min(0.2, fan_in**-0.5)
    return jnp.asarray(mean + rng.normal(0, std, leaf.shape), leaf.dtype)

  return jax.tree_util.tree_map_with_path(drawn, shapes)


def gradient_of(objective: Any) -> Any:
  """Compiled: from variables and a batch to the loss, and the gradient of its sum."""

  @jax.jit
  def run(variables: Variables, batch: dict[str, jax.Array]) -> Any:
    def total(params: Any) -> Any:
      loss = objective.loss(Variables(params, variables.extra), batch, STEP)
      return loss.sum, loss

    return jax.grad(total, has_aux=True)(variables.params)

  return run


@recent
def gradient(name: str) -> Any:
  return gradient_of(build(name))


def close(found: Any, expected: Any, rtol: float = 2e-4) -> None:
  """Equal trees, but for the order of float32 sums."""
  scale = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(expected))

  def check(a: Any, b: Any) -> None:
    np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * max(scale, 1e-6))

  jax.tree.map(check, found, expected)


def half(batch: dict[str, jax.Array], which: int) -> dict[str, jax.Array]:
  """A batch in which every other row does not count."""
  return {**batch, "valid": jnp.arange(ROWS) % 2 == which}


def check_parts_add_up(name: str) -> None:
  """What rows add to the loss and the gradient of a batch, they add in parts too."""
  if name in SHARED:
    pytest.skip(SHARED[name])
  run, whole = gradient(name), batch(name)
  slope, loss = run(variables(name), whole)
  parts = [run(variables(name), half(whole, which)) for which in range(2)]
  total = jax.tree.map(np.add, *[(part.sum, part.weight) for _, part in parts])
  close(total, (loss.sum, loss.weight))
  close(jax.tree.map(np.add, *[grads for grads, _ in parts]), slope)


def check_padding_does_not_count(name: str) -> None:
  """Rows that are not valid change nothing, nor does the batch size they make."""
  if name in SHARED:
    pytest.skip(SHARED[name])
  whole = batch(name)
  _, padded = gradient(name)(variables(name), half(whole, 0))
  rows = {key: column[::2] for key, column in whole.items()}
  fewer = jax.jit(build(name).loss)(variables(name), rows, STEP)
  close((padded.sum, padded.weight), (fewer.sum, fewer.weight))


def check_every_mesh_gives_the_same(name: str) -> None:
  """Data, fsdp and tensor parallel at once, against one device."""
  objective, whole = build(name), batch(name)
  _, alone = gradient(name)(variables(name), whole)
  mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
  with jax.set_mesh(mesh):
    placed = jax.device_put(variables(name), sharding.shardings(variables(name), mesh))
    rows = sharding.global_batch(mesh, {k: np.asarray(v) for k, v in whole.items()})
    loss = jax.jit(objective.loss)(placed, rows, STEP)
  close((loss.sum, loss.weight), (alone.sum, alone.weight))


def check_bfloat16_is_finite_and_near(name: str) -> None:
  objective = build(name, dtype="bfloat16")
  _, exact = gradient(name)(variables(name), batch(name))
  loss = jax.jit(objective.loss)(variables(name), batch(name), STEP)
  assert np.isfinite(float(loss.sum))
  assert all(leaf.dtype == jnp.float32 for leaf in (loss.sum, loss.weight))
  # Each rounding to 8 bits errs by up to 0.4 %, and a loss of four examples hardly
  # averages what dozens of them in a row add up to.
  np.testing.assert_allclose(loss.value(), exact.value(), rtol=0.1, atol=0.05)


def check_scan_and_remat_change_nothing(name: str) -> None:
  keywords = resolve.takes(systems.find(name))
  if "scan" not in keywords:
    pytest.skip("has no blocks that are alike")
  try:
    objective = build(name, scan=True, remat="full")
  except UserError as error:
    # Other blocks than the first may differ, or be made one by one.
    if not str(error).startswith("scan=True: expected"):
      raise
    objective = build(name, remat="full")
  slope, loss = gradient(name)(variables(name), batch(name))
  like = jax.eval_shape(objective.init, KEY, batch(name))
  params, extra = variables(name)
  looped = Variables(stacked_as(like.params, params), stacked_as(like.extra, extra))
  other, again = gradient_of(objective)(looped, batch(name))
  close((again.sum, again.weight), (loss.sum, loss.weight))
  close(other, stacked_as(like.params, slope))


def stacked_as(like: Any, tree: Any) -> Any:
  """Stacks the series of blocks that another tree has stacked, at any depth."""
  if not isinstance(like, dict):
    return tree
  if "blocks" in like and "blocks" not in tree:
    tree = stack_blocks(tree)
  return {name: stacked_as(like[name], tree[name]) for name in like}


def check_abilities_fit_each_other(name: str) -> None:
  """Shapes alone: features, pictures, teachers, and the batches that plans assume."""
  objective, whole = build(name), batch(name)
  offered, state = abilities_of(objective), variables(name)
  for key, shape in batch_shapes(name).items():
    assert whole[key].shape == shape.shape, key
  features = jax.eval_shape(offered.features, state, whole)
  assert features.shape[0] == ROWS and len(features.shape) in (2, 3)
  if offered.reconstruct is not None:
    pictures = jax.eval_shape(offered.reconstruct, state, whole, STEP)
    assert all(len(p.shape) == 4 and p.shape[0] == ROWS for p in pictures.values())
  if offered.teacher_variables is not None:
    handed_on = jax.eval_shape(offered.teacher_variables, state)
    assert jax.tree.structure(handed_on.params) == jax.tree.structure(state.params)


def check_a_step_is_taken(name: str) -> None:
  """The setting's optimizer moves the parameters; the held-out loss is a number."""
  config, objective, whole = small(name), build(name), batch(name)
  config.optimizer.warmup_steps = 0
  optimizer = resolve.build(optimizers, config.optimizer, num_steps=config.num_steps)
  params, extra = variables(name)
  slope, loss = gradient(name)(variables(name), whole)

  @jax.jit
  def step(params: Any, slope: Any, weight: jax.Array) -> Any:
    slope = jax.tree.map(lambda leaf: leaf / jnp.maximum(weight, 1), slope)
    updates, _ = optimizer.update(slope, optimizer.init(params), params)
    return optax.apply_updates(params, updates), optax.tree.norm(updates)

  moved, norm = step(params, slope, loss.weight)
  assert 0 < float(norm) < np.inf and np.isfinite(float(loss.value()))
  offered, state = abilities_of(objective), Variables(moved, extra)
  if offered.update is not None:
    before = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state)
    state = jax.jit(offered.update)(state, whole, STEP, loss.sums)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state) == before
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))
  if offered.evaluate == offered.loss:
    _, held_out = gradient(name)(state, whole)  # which is compiled
  else:
    held_out = jax.jit(offered.evaluate)(state, whole, STEP)
  assert held_out.sum.shape == loss.sum.shape == loss.weight.shape == ()
  assert np.isfinite(float(held_out.value()))
  if "bits_per_character" in held_out.metrics:
    assert 0 < held_out.metrics["bits_per_character"].value() < 20


CHECKS = [
  check_a_step_is_taken,
  check_parts_add_up,
  check_padding_does_not_count,
  check_every_mesh_gives_the_same,
  check_bfloat16_is_finite_and_near,
  check_scan_and_remat_change_nothing,
  check_abilities_fit_each_other,
]
EACH = pytest.mark.parametrize(
  "check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_")
)
