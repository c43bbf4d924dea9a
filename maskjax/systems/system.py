"""The record of a system: its names, its paper, and what it was checked against."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class System:
  """A row of the list of systems; each file of a system has one as `SYSTEM`.

  Attributes:
    name: as the paper is known, in lower case; also the name of the file, of its
      function, of its config and of its test.
    family: one of the families of systems, the folder that the file is in.
    paper: where it was published, for example `arXiv:2111.06377`.
    config: the config that trains it.
    agrees_with: the independent implementation whose numbers it is tested to give, for
      example `transformers ViTMAEForPreTraining`, or `equations in NumPy`.
    differs: what differs from the authors' code on purpose, a sentence each.
  """

  name: str
  family: str
  paper: str
  config: str
  agrees_with: str
  differs: tuple[str, ...] = ()
