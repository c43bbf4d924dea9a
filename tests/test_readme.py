"""The README's code is run as it stands there."""

import re
from pathlib import Path

import numpy as np

README = Path(__file__).parent.parent / "README.md"


def test_custom_objective_learns_on_the_mesh_of_all_devices():
  code = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
  assert code is not None
  assert len(code[1][: code[1].index("\ndata =")].splitlines()) <= 30
  names: dict = {}
  exec(code[1], names)
  jax, state = names["jax"], names["state"]
  assert int(state.step) == 300
  batch = next(names["data"](0))
  key = jax.random.key(1)

  def loss(params):
    return float(names["HalfHidden"]().loss(params, (), batch, key).value())

  trained, zero = loss(state.params), loss(jax.tree.map(np.zeros_like, state.params))
  assert trained < 0.5 * zero
