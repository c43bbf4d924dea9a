"""From the transforms that a config names to functions."""

import functools
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from maskjax import resolve
from maskjax.data import transforms
from maskjax.data.records import Transform

# How a transform annotates a keyword that holds other transforms; a string where its
# module postpones annotations.
_NESTED = (Sequence[Transform], "Sequence[Transform]")


def bind_transform(spec: str | Mapping[str, Any]) -> Transform:
  """Finds the transform that a config names, and binds its keywords.

  A keyword that the transform annotates as `Sequence[Transform]`, such as `first` and
  `second` of `two_views`, holds transforms in turn, named in the same way.

  Args:
    spec: the name of a function of `maskjax.data.transforms` or an import path, or a
      mapping of `name` and the function's keywords.

  Returns:
    A function of a record, or of a record and `rng`.

  Raises:
    UserError: no such function, or a keyword that it does not take.

  Example:
    >>> import numpy as np
    >>> crop = {"name": "random_crop", "size": 4}
    >>> views = bind_transform({"name": "two_views", "first": [crop], "second": []})
    >>> record = {"image": np.zeros((8, 8, 3), np.uint8)}
    >>> views(record, np.random.default_rng(0))["image"].shape
    (4, 4, 3)
  """
  bound = resolve.bind(transforms, spec)
  if isinstance(spec, str):
    return bound
  parameters = inspect.signature(resolve.find(transforms, spec["name"])).parameters
  nested = {
    key: [bind_transform(part) for part in value]
    for key, value in spec.items()
    if key in parameters and parameters[key].annotation in _NESTED
  }
  return functools.partial(bound, **nested) if nested else bound
