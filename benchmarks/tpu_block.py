"""Plans one block of MAE ViT-L/16 for one v5p, forward and backward, 64 images.

  pip install '.[plan]' && python benchmarks/tpu_block.py encoder

Prints what the TPU compiler expects the block to take, and the operations that take
most of it. `--as-on-cpu` gives attention and dense layers the forms that they have on
CPUs; `--gelu=jax` takes JAX's GELU. It takes about a minute on one CPU core.
"""

import argparse
import functools

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from maskjax import sharding
from maskjax.models import (
  BlockOptions,
  Transformer,
  attention,
  dense,
  transformer,
)
from maskjax.planning import Slice
from maskjax.planning.compiler import topology_devices
from maskjax.planning.costs import read_costs, scopes
from maskjax.planning.hlo import Program

# Tokens, width and heads: of the visible patches and the class token, and of all.
SHAPES = {"encoder": (50, 1024, 16), "decoder": (197, 512, 16)}


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("network", choices=SHAPES)
  parser.add_argument("--as-on-cpu", action="store_true")
  parser.add_argument("--gelu", choices=("own", "jax"), default="own")
  parser.add_argument("--show", type=int, default=0, help="operations to list")
  options = parser.parse_args()
  if options.as_on_cpu:
    attention.for_tpu = dense.for_tpu = lambda: False
  if options.gelu == "jax":
    transformer.gelu = functools.partial(jax.nn.gelu, approximate=False)
  tokens, width, heads = SHAPES[options.network]
  where = Slice(kind="v5p", shape=(1, 1, 1))
  mesh = sharding.make_mesh(devices=topology_devices(where))
  model = Transformer(depth=1, heads=heads, options=BlockOptions(dtype=jnp.bfloat16))

  def place(shapes):
    here = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(
      lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=here), shapes
    )

  def gradients(params, x, cotangent):
    def apply(params, x):
      return model.apply({"params": params}, x)

    y, pullback = jax.vjp(apply, params, x)
    return y, pullback(cotangent)

  key = jax.random.key(0)
  with jax.set_mesh(mesh):
    x = place(jax.ShapeDtypeStruct((64, tokens, width), jnp.bfloat16))
    params = place(jax.eval_shape(model.init, key, x)["params"])
    compiled = jax.jit(gradients).lower(params, x, x).compile()
  program = Program.parse(compiled.as_text())
  cycles = read_costs(program, where.num_chips).cycles
  print(f"{options.network}: {1e3 * cycles / where.chip.clock:.3f} ms a block")
  for name, share in list(scopes(program).items())[: options.show]:
    print(f"{1e6 * share / where.chip.clock:8.1f} us  {name}")


if __name__ == "__main__":
  main()
