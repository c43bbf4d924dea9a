"""Learning rates that fall from each layer to the one below."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from maskjax.errors import UserError
from maskjax.sharding import path_name

# A parameter of `block_3` of a network, or of all its blocks where they are stacked.
BLOCK = re.compile(r"(?P<network>.*)/block(s|_(?P<one>\d+))/")
# One of `stage_1_block_3` of a network in stages, and one between two stages.
STAGED = re.compile(r"(?P<network>.*)/stage_(?P<stage>\d+)_(block|norm)_(?P<one>\d+)/")
BETWEEN = re.compile(
  r"(?P<network>.*)/(?P<kind>merging|reduce)_(?P<stage>\d+)(_norm)?/"
)
# One of an encoder that stands before its blocks.
BELOW = re.compile(
  r"(?P<network>.*encoder(/network)?)/"
  r"(embed|cls|positions|registers|tokens|types|mask_token|stem)(_norm)?(/|$)"
)


def scale_by_layer(
  decay: float, stage_blocks: Sequence[int] = ()
) -> optax.GradientTransformation:
  """Layer-wise learning-rate decay (https://arxiv.org/abs/2003.10555).

  Args:
    decay: factor from each layer to the one below; a layer is a block, or several of a
      stage. Parameters before the blocks are one layer below the first; those after the
      blocks keep the full rate. What makes a grid coarser between two stages is of the
      upper stage's first layer, but of a Swin of the lower stage's last, as their
      authors have it.
    stage_blocks: of networks in stages, how many blocks of each stage are one layer;
      each its own when empty.

  Raises:
    UserError: at the first step, if the model has no blocks, or another number of
      stages.
  """

  def scale(updates: Any, params: Any = None) -> Any:
    del params
    depths = _depths(
      {path_name(path): leaf for path, leaf in jax.tree.leaves_with_path(updates)}
    )
    if not depths:
      raise UserError(
        f"optimizer.layer_decay={decay}: expected a model with transformer blocks, or "
        "with stages"
      )
    # The first layer of each stage of each network, and last of all their number.
    first = {
      name: _first_layers(stages, stage_blocks) for name, stages in depths.items()
    }

    def one(path: tuple, update: jax.Array) -> jax.Array:
      name = path_name(path)
      if (found := STAGED.match(name)) or (found := BETWEEN.match(name)):
        layers, stage = first[found["network"]], int(found["stage"])
        if "one" not in found.groupdict():
          layer = layers[stage] - (found["kind"] == "merging")
        else:
          of_layer = stage_blocks[stage] if stage_blocks else 1
          layer = layers[stage] + int(found["one"]) // of_layer
        return update * decay ** (layers[-1] - layer)
      if block := BLOCK.match(name):
        (depth,) = depths[block["network"]]
        if block["one"] is not None:
          return update * decay ** (depth - int(block["one"]))
        factors = decay ** (depth - jnp.arange(depth, dtype=jnp.float32))
        return update * factors.reshape(-1, *[1] * (update.ndim - 1))
      if below := BELOW.match(name):
        network = below["network"]
        if above := first.get(f"{network}/transformer", first.get(network)):
          return update * decay ** above[-1]
      return update

    return jax.tree.map_with_path(one, updates)

  return optax.stateless(scale)


def _depths(arrays: Mapping[str, Any]) -> dict[str, list[int]]:
  """How many blocks each network has: one number, or one for each of its stages."""
  blocks: dict[str, dict[int, int]] = {}
  for name, leaf in arrays.items():
    if found := STAGED.match(name):
      stage, count = int(found["stage"]), int(found["one"]) + 1
    elif found := BLOCK.match(name):
      stage, count = 0, leaf.shape[0] if found["one"] is None else int(found["one"]) + 1
    else:
      continue
    stages = blocks.setdefault(found["network"], {})
    stages[stage] = max(count, stages.get(stage, 0))
  return {name: [stages[s] for s in sorted(stages)] for name, stages in blocks.items()}


def _first_layers(depths: Sequence[int], stage_blocks: Sequence[int]) -> list[int]:
  """The number of the first layer of each stage, from 1 on, and of what follows.

  Example:
    >>> _first_layers([3, 4, 6, 3], [3, 2, 3, 3])
    [1, 2, 4, 6, 7]
  """
  if stage_blocks and len(stage_blocks) != len(depths):
    raise UserError(
      f"optimizer.layer_blocks={tuple(stage_blocks)}: expected one for each of "
      f"{len(depths)} stages"
    )
  layers = [1]
  for stage, depth in enumerate(depths):
    of_layer = stage_blocks[stage] if stage_blocks else 1
    layers.append(layers[-1] + -(-depth // of_layer))
  return layers
