"""The list of systems, read off the files that hold them."""

import dataclasses
import importlib
import pkgutil


@dataclasses.dataclass(frozen=True, kw_only=True)
class System:
  """A row of the list of systems.

  Attributes:
    name: as the paper is known.
    family: one of the families of systems, for example `image`.
    paper: where it was published, for example `arXiv:2111.06377`.
    config: the config that trains it.
    agrees_with: the independent implementation whose numbers it is tested to give, for
      example `transformers ViTMAEForPreTraining`, or `equations in NumPy`.
  """

  name: str
  family: str
  paper: str
  config: str
  agrees_with: str


def systems() -> list[System]:
  """All systems: the `SYSTEM` of each module of `maskjax.objectives` with one."""
  from maskjax import objectives

  prefix = f"{objectives.__name__}."
  found = pkgutil.walk_packages(objectives.__path__, prefix)
  modules = (importlib.import_module(name) for name in sorted(m.name for m in found))
  return [module.SYSTEM for module in modules if hasattr(module, "SYSTEM")]
