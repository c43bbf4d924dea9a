"""Optimizers, with the hyperparameters that the papers' tables list."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import optax

from maskjax.errors import UserError
from maskjax.schedules import check_sizes, learning_rates, weight_decays
from maskjax.training.bfloat16_state import in_bfloat16
from maskjax.training.directions import (
  scale_by_stable_adam,
  scale_by_uncorrected_adam,
)
from maskjax.training.layer_decay import scale_by_layer
from maskjax.training.per_parameter import (
  add_decays,
  clip_each_norm,
  decays,
  scale_by_path,
)

__all__ = ["adamw", "lamb", "sgd", "stable_adamw"]

NO_DECAY = r"(bias|scale)$"


def adamw(
  *,
  learning_rate: float,
  num_steps: int,
  b1: float = 0.9,
  b2: float = 0.95,
  epsilon: float = 1e-8,
  bias_correction: bool = True,
  weight_decay: float = 0.05,
  final_weight_decay: float | None = None,
  fully_decoupled: bool = False,
  no_decay: str = NO_DECAY,
  decay_factors: Mapping[str, float] | None = None,
  clip_norm: float = 0.0,
  clip_each: float = 0.0,
  layer_decay: float = 1.0,
  layer_blocks: Sequence[int] = (),
  factors: Mapping[str, float] | None = None,
  state_dtype: str = "float32",
  warmup_steps: int = 0,
  initial_learning_rate: float = 0.0,
  final_learning_rate: float = 0.0,
  schedule: str = "cosine",
  counts_warmup: bool = False,
  drop_at: int = 0,
  cycles: int = 1,
) -> optax.GradientTransformation:
  """AdamW.

  Args:
    learning_rate: peak of the schedule, see
      `maskjax.schedules.learning_rates`.
    num_steps: steps of the whole run.
    b1: decay of the first moment.
    b2: decay of the second moment.
    epsilon: added to the root of the second moment.
    bias_correction: of the moments, see `scale_by_uncorrected_adam` for how it is
      without.
    weight_decay: decoupled weight decay, multiplied by the learning rate.
    final_weight_decay: at the end of a cosine schedule; None keeps it constant.
    fully_decoupled: multiply the decay by the share of the peak that the learning rate
      has, and not by the rate itself, as MosaicML's `DecoupledAdamW` does.
    no_decay: regular expression, found in the paths of parameters without decay.
    decay_factors: of the weight decay, by regular expressions for the paths of
      parameters; the first that is found in a path applies, before `no_decay`.
    clip_norm: largest global norm of the gradient; 0 does not clip.
    clip_each: largest norm of the gradient of each parameter by itself, as DINO's
      authors clip; 0 does not clip.
    layer_decay: factor of the learning rate from each block to the one below.
    layer_blocks: of a network in stages, how many blocks of each stage have one rate;
      each its own when empty.
    factors: of the learning rate, by regular expressions for the paths of parameters;
      the first that is found in a path applies.
    state_dtype: `float32`, or `bfloat16` to halve the memory of the moments, see
      `in_bfloat16`.
    warmup_steps: see `learning_rates`.
    initial_learning_rate: see `learning_rates`.
    final_learning_rate: see `learning_rates`.
    schedule: see `learning_rates`.
    counts_warmup: see `learning_rates`.
    drop_at: see `learning_rates`.
    cycles: see `learning_rates`.

  Raises:
    UserError: names the hyperparameter that is out of range.
  """
  if state_dtype not in ("float32", "bfloat16"):
    raise UserError(
      f"optimizer.state_dtype={state_dtype!r}: expected 'float32' or 'bfloat16'"
    )
  rates = learning_rates(
    learning_rate=learning_rate,
    num_steps=num_steps,
    warmup_steps=warmup_steps,
    initial_learning_rate=initial_learning_rate,
    final_learning_rate=final_learning_rate,
    schedule=schedule,
    counts_warmup=counts_warmup,
    drop_at=drop_at,
    cycles=cycles,
  )
  if fully_decoupled:
    weight_decay, final_weight_decay = _by_peak(
      learning_rate, weight_decay, final_weight_decay
    )
  decay = weight_decays(weight_decay, final_weight_decay, num_steps)
  which = decays(no_decay)
  moments = {"b1": b1, "b2": b2, "eps": epsilon}
  if bias_correction and not decay_factors:
    adam = optax.adamw(rates, **moments, weight_decay=decay, mask=which)
  else:
    adam = optax.chain(
      optax.scale_by_adam(**moments)
      if bias_correction
      else scale_by_uncorrected_adam(b1=b1, b2=b2, epsilon=epsilon),
      add_decays(decay, decay_factors, no_decay)
      if decay_factors
      else optax.add_decayed_weights(decay, which),
      optax.scale_by_learning_rate(rates),
    )
  parts = [clip_each_norm(clip_each)] if clip_each else []
  parts += _clipping(clip_norm)
  parts.append(in_bfloat16(adam) if state_dtype == "bfloat16" else adam)
  if layer_decay != 1:
    parts.append(scale_by_layer(layer_decay, layer_blocks))
  if factors:
    parts.append(scale_by_path(factors))
  return optax.chain(*parts)


def stable_adamw(
  *,
  learning_rate: float,
  num_steps: int,
  b1: float = 0.9,
  b2: float = 0.99,
  epsilon: float = 1e-6,
  weight_decay: float = 0.01,
  fully_decoupled: bool = False,
  no_decay: str = NO_DECAY,
  clip_norm: float = 0.0,
  warmup_steps: int = 0,
  initial_learning_rate: float = 0.0,
  final_learning_rate: float = 0.0,
  schedule: str = "cosine",
) -> optax.GradientTransformation:
  """StableAdamW: Adam whose steps shorten where a gradient is suddenly large.

  https://arxiv.org/abs/2304.13013, algorithm 2, which ModernBERT is trained by.

  Args:
    learning_rate: peak of the schedule, see `maskjax.schedules.learning_rates`.
    num_steps: steps of the whole run.
    b1: decay of the first moment.
    b2: decay of the second moment.
    epsilon: added to the root of the second moment; see `scale_by_stable_adam`.
    weight_decay: factor of a parameter that is added to its update.
    fully_decoupled: see `adamw`.
    no_decay: regular expression, found in the paths of parameters without decay.
    clip_norm: largest global norm of the gradient; 0 does not clip.
    warmup_steps: see `learning_rates`.
    initial_learning_rate: see `learning_rates`.
    final_learning_rate: see `learning_rates`.
    schedule: see `learning_rates`.

  Raises:
    UserError: names the hyperparameter that is out of range.
  """
  rates = learning_rates(
    learning_rate=learning_rate,
    num_steps=num_steps,
    warmup_steps=warmup_steps,
    initial_learning_rate=initial_learning_rate,
    final_learning_rate=final_learning_rate,
    schedule=schedule,
  )
  check_sizes(weight_decay=weight_decay)
  if fully_decoupled:
    weight_decay, _ = _by_peak(learning_rate, weight_decay, None)
  return optax.chain(
    *_clipping(clip_norm),
    scale_by_stable_adam(
      b1=b1,
      b2=b2,
      epsilon=epsilon,
      weight_decay=weight_decay,
      decays=decays(no_decay),
    ),
    optax.scale_by_learning_rate(rates),
  )


def lamb(
  *,
  learning_rate: float,
  num_steps: int,
  b1: float = 0.9,
  b2: float = 0.999,
  epsilon: float = 1e-6,
  weight_decay: float = 0.01,
  final_weight_decay: float | None = None,
  no_decay: str = NO_DECAY,
  clip_norm: float = 0.0,
  bias_correction: bool = True,
  scale_all: bool = False,
  layer_decay: float = 1.0,
  layer_blocks: Sequence[int] = (),
  warmup_steps: int = 0,
  initial_learning_rate: float = 0.0,
  final_learning_rate: float = 0.0,
) -> optax.GradientTransformation:
  """LAMB.

  The update of each array, decay included, is scaled to the norm of the array
  (https://arxiv.org/abs/1904.00962, algorithm 2). Arrays without decay are updated as
  by Adam.

  Args:
    learning_rate: peak of the schedule.
    num_steps: steps of the whole run.
    b1: decay of the first moment.
    b2: decay of the second moment.
    epsilon: added to the root of the second moment.
    weight_decay: factor of a parameter that is added to its update.
    final_weight_decay: at the end of a cosine schedule; None keeps it constant.
    no_decay: regular expression, found in the paths of parameters without decay.
    clip_norm: largest global norm of the gradient; 0 does not clip.
    bias_correction: whether the moments are means of what they have seen so far, as
      Adam's are.
    scale_all: scale the updates of arrays without decay too.
    layer_decay: see `adamw`.
    layer_blocks: see `adamw`.
    warmup_steps: see `maskjax.schedules.learning_rates`.
    initial_learning_rate: see `learning_rates`.
    final_learning_rate: see `learning_rates`.

  Raises:
    UserError: names the hyperparameter that is out of range.
  """
  rates = learning_rates(
    learning_rate=learning_rate,
    num_steps=num_steps,
    warmup_steps=warmup_steps,
    initial_learning_rate=initial_learning_rate,
    final_learning_rate=final_learning_rate,
  )
  which = decays(no_decay)
  decay = weight_decays(weight_decay, final_weight_decay, num_steps)
  parts = [*_clipping(clip_norm), optax.scale_by_adam(b1=b1, b2=b2, eps=epsilon)]
  if not bias_correction:
    parts.append(optax.scale_by_schedule(functools.partial(_uncorrected, b1, b2)))
  parts.append(optax.add_decayed_weights(decay, mask=which))
  ratio = optax.scale_by_trust_ratio()
  parts.append(ratio if scale_all else optax.masked(ratio, which))
  parts.append(optax.scale_by_learning_rate(rates))
  if layer_decay != 1:
    parts.append(scale_by_layer(layer_decay, layer_blocks))
  return optax.chain(*parts)


def _uncorrected(b1: float, b2: float, count: Any) -> Any:
  """What Adam's update is to be multiplied by to be that of moments as they are."""
  steps = count + 1
  return (1 - b1**steps) / jnp.sqrt(1 - b2**steps)


def sgd(
  *,
  learning_rate: float,
  num_steps: int,
  momentum: float = 0.9,
  nesterov: bool = True,
  weight_decay: float = 1e-4,
  no_decay: str = NO_DECAY,
  clip_norm: float = 0.0,
  warmup_steps: int = 0,
  final_learning_rate: float = 0.0,
) -> optax.GradientTransformation:
  """Gradient descent with momentum.

  Args:
    learning_rate: peak of the schedule.
    num_steps: steps of the whole run.
    momentum: decay of the sum of gradients.
    nesterov: whether to use Nesterov momentum.
    weight_decay: factor of a parameter that is added to its gradient.
    no_decay: regular expression, found in the paths of parameters without decay.
    clip_norm: largest global norm of the gradient; 0 does not clip.
    warmup_steps: see `maskjax.schedules.learning_rates`.
    final_learning_rate: see `learning_rates`.

  Raises:
    UserError: names the hyperparameter that is out of range.
  """
  rates = learning_rates(
    learning_rate=learning_rate,
    num_steps=num_steps,
    warmup_steps=warmup_steps,
    final_learning_rate=final_learning_rate,
  )
  decay = weight_decays(weight_decay, None, num_steps)
  return optax.chain(
    *_clipping(clip_norm),
    optax.add_decayed_weights(decay, decays(no_decay)),
    optax.sgd(rates, momentum=momentum, nesterov=nesterov),
  )


def _clipping(norm: float) -> list[optax.GradientTransformation]:
  check_sizes(clip_norm=norm)
  return [optax.clip_by_global_norm(norm)] if norm else []


def _by_peak(
  peak: float, first: float, last: float | None
) -> tuple[float, float | None]:
  """Decays which, times the learning rate, are these where the rate is at its peak."""
  if not peak:
    raise UserError(
      "optimizer.fully_decoupled=True: expected a learning_rate above 0, of which the "
      "decay follows the share"
    )
  return first / peak, None if last is None else last / peak
