"""Our parameters under the names of transformers, still leaves of a tree of ours."""

import jax
import torch


def leaves(params):
  """Tensors of torch that gather gradients, in the layout of ours."""
  return jax.tree.map(lambda x: torch.tensor(x, requires_grad=True), params)


def gradients(tensors):
  """What `backward` left in them."""
  return jax.tree.map(lambda x: x.grad.numpy(), tensors)


def dense(name, ours):
  return {f"{name}.weight": ours["kernel"].T, f"{name}.bias": ours["bias"]}


def norm(name, ours):
  return {f"{name}.weight": ours["scale"], f"{name}.bias": ours["bias"]}


def convolution(name, ours, patch, channels):
  """The embedding of patches: [P * P * C, D] to [D, C, P, P]."""
  kernel = ours["kernel"].reshape(patch, patch, channels, -1)
  return {f"{name}.weight": kernel.permute(3, 2, 0, 1), f"{name}.bias": ours["bias"]}


def blocks(name, ours):
  """`block_0`, `block_1`, ... of a `Transformer` to layers of a ViT."""
  state = {}
  for block, of_block in ours.items():
    there = f"{name}.{block.removeprefix('block_')}"
    for layer, there_too in (
      ("query", "q"),
      ("key", "k"),
      ("value", "v"),
      ("out", "o"),
    ):
      state |= dense(
        f"{there}.attention.{there_too}_proj", of_block["attention"][layer]
      )
    state |= norm(f"{there}.layernorm_before", of_block["attention_norm"])
    state |= norm(f"{there}.layernorm_after", of_block["mlp_norm"])
    state |= dense(f"{there}.mlp.fc1", of_block["mlp"]["up"])
    state |= dense(f"{there}.mlp.fc2", of_block["mlp"]["down"])
  return state
