"""Numbers that change over a run: mask ratios, weights, temperatures, decays, rates.

The shapes take the share of the way that is done, from 0 to 1, so that none counts
steps. The share itself is `Step.progress`, or `ramp` of a part of the run.
"""

from collections.abc import Callable

import jax.numpy as jnp
import optax
from jax import Array

from maskjax.errors import UserError, did_you_mean

Schedule = Callable[[Array | float, Array | float, Array | float], Array]


def ramp(step: Array | int, num_steps: int, *, start: int = 0) -> Array:
  """Which share of `num_steps` steps from `start` on is done at a step, in [0, 1].

  Example:
    >>> [float(ramp(step, 4, start=2)) for step in (0, 3, 9)]
    [0.0, 0.25, 1.0]
  """
  return jnp.clip((step - start) / max(1, num_steps), 0, 1)


def linear(first: Array | float, last: Array | float, done: Array | float) -> Array:
  """From `first` to `last` along a line.

  Example:
    >>> float(linear(0.5, 1.0, 0.5))
    0.75
  """
  return first + (last - first) * jnp.asarray(done)


def cosine(first: Array | float, last: Array | float, done: Array | float) -> Array:
  """From `first` to `last` along half a cosine, slowly at both ends.

  Example:
    >>> print(round(float(cosine(0.0, 1.0, 0.5)), 4))
    0.5
  """
  return first + (last - first) * ((1 - jnp.cos(jnp.pi * jnp.asarray(done))) / 2)


def constant(first: Array | float, last: Array | float, done: Array | float) -> Array:
  """`first`, all the way.

  Example:
    >>> float(constant(0.5, 1.0, 0.9))
    0.5
  """
  del last
  return jnp.full_like(jnp.asarray(done, jnp.float32), first)


SHAPES: dict[str, Schedule] = {
  "constant": constant,
  "cosine": cosine,
  "linear": linear,
}


def find(key: str, shape: str) -> Schedule:
  """Finds a schedule by name.

  Args:
    key: the hyperparameter that names it, for the message.
    shape: a name in `SHAPES`.

  Raises:
    UserError: no such schedule; names the nearest.
  """
  if shape not in SHAPES:
    raise UserError(f"{key}={shape!r}: {did_you_mean(str(shape), SHAPES)}")
  return SHAPES[shape]


def learning_rates(
  *,
  learning_rate: float,
  num_steps: int,
  warmup_steps: int = 0,
  initial_learning_rate: float = 0.0,
  final_learning_rate: float = 0.0,
  schedule: str = "cosine",
  counts_warmup: bool = False,
  drop_at: int = 0,
  cycles: int = 1,
) -> optax.Schedule:
  """Learning rates of an optimizer: a linear warm-up, then a schedule to the end.

  Args:
    learning_rate: the peak, after the warm-up.
    num_steps: steps until the end.
    warmup_steps: steps of the warm-up.
    initial_learning_rate: where the warm-up starts.
    final_learning_rate: where the schedule ends.
    schedule: a name in `SHAPES`, of the way from the peak to the end.
    counts_warmup: begin the schedule at the first step and not after the warm-up, in
      whose place it stands there, as timm and BERT have it: the rate is a little below
      the peak when the warm-up has reached it.
    drop_at: step from which the rate is a tenth of its peak, constant before and
      after it, instead of following a schedule; 0 for none.
    cycles: how often all this is run through, for systems that begin anew; divides
      `num_steps`, and `warmup_steps` and `drop_at` are of each.

  Raises:
    UserError: names the hyperparameter that is out of range.

  Example:
    >>> rate = learning_rates(learning_rate=1.0, num_steps=8, warmup_steps=2)
    >>> [round(float(rate(step)), 2) for step in (0, 1, 2, 5, 8)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    >>> whole = dict(learning_rate=1.0, num_steps=8, counts_warmup=True)
    >>> rate = learning_rates(warmup_steps=2, schedule="linear", **whole)
    >>> [round(float(rate(step)), 2) for step in (0, 1, 2, 4, 8)]
    [0.0, 0.5, 0.75, 0.5, 0.0]
  """
  if cycles < 1 or num_steps % cycles:
    raise UserError(
      f"optimizer.cycles={cycles}: expected a divisor of num_steps={num_steps}"
    )
  period = num_steps // cycles
  if period < 1 or not 0 <= warmup_steps < period:
    raise UserError(
      f"optimizer.warmup_steps={warmup_steps}: expected at least 0 and fewer than "
      f"num_steps={num_steps}" + (f" / cycles={cycles}" if cycles > 1 else "")
    )
  if drop_at and not warmup_steps <= drop_at < period:
    raise UserError(
      f"optimizer.drop_at={drop_at}: expected 0, or at least warmup_steps="
      f"{warmup_steps} and less than num_steps={period}"
    )
  find("optimizer.schedule", schedule)
  check_sizes(
    learning_rate=learning_rate,
    initial_learning_rate=initial_learning_rate,
    final_learning_rate=final_learning_rate,
  )
  fall = period if counts_warmup else period - warmup_steps
  # By optax, so that the rates of runs that go on are the same bit for bit.
  share = final_learning_rate / learning_rate if learning_rate else 0.0
  after = {
    "constant": optax.constant_schedule(learning_rate),
    "cosine": optax.cosine_decay_schedule(learning_rate, fall, share),
    "linear": optax.linear_schedule(learning_rate, final_learning_rate, fall),
  }[schedule]
  if counts_warmup:
    after = _later(after, warmup_steps)
  if drop_at:
    levels = [optax.constant_schedule(x) for x in (learning_rate, learning_rate / 10)]
    after = optax.join_schedules(levels, [drop_at - warmup_steps])
  warm = optax.linear_schedule(initial_learning_rate, learning_rate, warmup_steps)
  cycle = optax.join_schedules([warm, after], [warmup_steps])
  return cycle if cycles == 1 else lambda step: cycle(step % period)


def _later(schedule: optax.Schedule, steps: int) -> optax.Schedule:
  """A schedule of which these steps are over when it begins."""
  return lambda step: schedule(step + steps)


def weight_decays(
  first: float, last: float | None, num_steps: int
) -> float | optax.Schedule:
  """A decay that is constant, or goes up or down along a cosine to `last`.

  Example:
    >>> rising = weight_decays(0.04, 0.4, 10)
    >>> [round(float(rising(step)), 2) for step in (0, 5, 10, 11)]
    [0.04, 0.22, 0.4, 0.4]
  """
  check_sizes(weight_decay=first, final_weight_decay=first if last is None else last)
  if last is None:
    return first
  share = optax.cosine_decay_schedule(1.0, num_steps)
  return lambda step: last + (first - last) * share(step)


def check_sizes(**sizes: float) -> None:
  """Raises a `UserError` for a hyperparameter of an optimizer that is below 0."""
  for key, value in sizes.items():
    if value < 0:
      raise UserError(f"optimizer.{key}={value}: expected at least 0")
