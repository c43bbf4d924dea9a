"""Optimizers as the papers' tables write them."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import optax

from maskjax.errors import UserError
from maskjax.sharding import path_name

__all__ = ["adamw"]

# A parameter of `block_3` of a network, or of all its blocks where they are stacked.
BLOCK = re.compile(r"(?P<network>.*)/block(s|_(?P<one>\d+))/")


def adamw(
  *,
  learning_rate: float,
  num_steps: int,
  warmup_steps: int = 0,
  final_learning_rate: float = 0.0,
  b1: float = 0.9,
  b2: float = 0.95,
  epsilon: float = 1e-8,
  weight_decay: float = 0.05,
  no_decay: str = r"(bias|scale)$",
  clip_norm: float = 0.0,
  layer_decay: float = 1.0,
) -> optax.GradientTransformation:
  """AdamW with a linear warm-up and a cosine to the end.

  Args:
    learning_rate: its peak, after the warm-up.
    num_steps: steps until the cosine ends.
    warmup_steps: steps over which the rate rises from 0.
    final_learning_rate: where the cosine ends.
    b1: decay of the first moment.
    b2: decay of the second moment.
    epsilon: added to the root of the second moment.
    weight_decay: decoupled weight decay, multiplied by the learning rate.
    no_decay: regular expression for the paths of parameters without decay.
    clip_norm: largest global norm of the gradient; 0 never clips.
    layer_decay: factor of the learning rate from each block to the one below.

  Raises:
    UserError: names the hyperparameter that is out of range.
  """
  if num_steps < 1 or not 0 <= warmup_steps < num_steps:
    raise UserError(
      f"optimizer.warmup_steps={warmup_steps}: expected at least 0 and fewer than "
      f"num_steps={num_steps}"
    )
  if learning_rate < 0 or weight_decay < 0 or clip_norm < 0:
    raise UserError(
      f"optimizer.learning_rate={learning_rate}, weight_decay={weight_decay}, "
      f"clip_norm={clip_norm}: expected none below 0"
    )
  schedule = optax.warmup_cosine_decay_schedule(
    init_value=0.0,
    peak_value=learning_rate,
    warmup_steps=warmup_steps,
    decay_steps=num_steps,
    end_value=final_learning_rate,
  )

  def decays(params: Any) -> Any:
    return jax.tree.map_with_path(
      lambda path, _: re.search(no_decay, path_name(path)) is None, params
    )

  parts = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
  parts.append(
    optax.adamw(
      schedule, b1=b1, b2=b2, eps=epsilon, weight_decay=weight_decay, mask=decays
    )
  )
  if layer_decay != 1:
    parts.append(scale_by_layer(layer_decay))
  return optax.chain(*parts)


def scale_by_layer(decay: float) -> optax.GradientTransformation:
  """Layer-wise learning-rate decay (https://arxiv.org/abs/2003.10555).

  Args:
    decay: factor from each block to the one below. What stands before the blocks
      is one layer below the first, what stands after them keeps the full rate.
  """

  def scale(updates: Any, params: Any = None) -> Any:
    del params
    depths: dict[str, int] = {}  # blocks by the network that holds them
    for path, leaf in jax.tree.leaves_with_path(updates):
      if block := BLOCK.match(path_name(path)):
        blocks = leaf.shape[0] if block["one"] is None else int(block["one"]) + 1
        depths[block["network"]] = max(blocks, depths.get(block["network"], 0))
    if not depths:
      raise UserError(
        f"optimizer.layer_decay={decay}: expected a model with transformer blocks"
      )

    def one(path: tuple, update: jax.Array) -> jax.Array:
      name = path_name(path)
      if block := BLOCK.match(name):
        depth = depths[block["network"]]
        if block["one"] is not None:
          return update * decay ** (depth - int(block["one"]))
        factors = decay ** (depth - jnp.arange(depth, dtype=jnp.float32))
        return update * factors.reshape(-1, *[1] * (update.ndim - 1))
      if below := re.match(r"(.*encoder/)(embed|cls)", name):
        return update * decay ** (depths[f"{below[1]}transformer"] + 1)
      return update

    return jax.tree.map_with_path(one, updates)

  return optax.stateless(scale)
