"""Learning rates and decays that change as a run goes on."""

from typing import Any

import optax

from maskjax.errors import UserError, did_you_mean


def learning_rates(
  *,
  learning_rate: float,
  num_steps: int,
  warmup_steps: int = 0,
  initial_learning_rate: float = 0.0,
  final_learning_rate: float = 0.0,
  falls: str = "cosine",
  drop_at: int = 0,
  cycles: int = 1,
) -> optax.Schedule:
  """A linear warm-up, and a cosine, a line or one step to the end.

  Args:
    learning_rate: the peak, after the warm-up.
    num_steps: steps until the end.
    warmup_steps: steps of the warm-up.
    initial_learning_rate: where the warm-up starts.
    final_learning_rate: where the decay ends.
    falls: decays along a `cosine` or a `line`.
    drop_at: step from which the rate is a tenth of its peak, constant before and
      after it, instead of decaying smoothly; 0 for none.
    cycles: how often all this is run through, for systems that begin anew; divides
      `num_steps`, and `warmup_steps` and `drop_at` are of each.

  Raises:
    UserError: names the hyperparameter that is out of range.

  Example:
    >>> rate = learning_rates(learning_rate=1.0, num_steps=8, warmup_steps=2)
    >>> [round(float(rate(step)), 2) for step in (0, 1, 2, 5, 8)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
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
  if falls not in ("cosine", "line"):
    raise UserError(
      f"optimizer.falls={falls!r}: {did_you_mean(str(falls), ('cosine', 'line'))}"
    )
  check_sizes(
    learning_rate=learning_rate,
    initial_learning_rate=initial_learning_rate,
    final_learning_rate=final_learning_rate,
  )
  if drop_at:
    cycle = optax.join_schedules(
      [
        optax.linear_schedule(initial_learning_rate, learning_rate, warmup_steps),
        optax.constant_schedule(learning_rate),
        optax.constant_schedule(learning_rate / 10),
      ],
      [warmup_steps, drop_at],
    )
  elif falls == "line":
    fall = period - warmup_steps
    cycle = optax.join_schedules(
      [
        optax.linear_schedule(initial_learning_rate, learning_rate, warmup_steps),
        optax.linear_schedule(learning_rate, final_learning_rate, fall),
      ],
      [warmup_steps],
    )
  else:
    cycle = optax.warmup_cosine_decay_schedule(
      init_value=initial_learning_rate,
      peak_value=learning_rate,
      warmup_steps=warmup_steps,
      decay_steps=period,
      end_value=final_learning_rate,
    )
  return cycle if cycles == 1 else lambda step: cycle(step % period)


def weight_decays(first: float, last: float | None, num_steps: int) -> Any:
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
