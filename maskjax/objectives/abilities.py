"""What an objective can do besides `init` and `loss`: each ability is a protocol.

`abilities_of(objective)` finds out once what an object offers, and refuses one whose
method has another signature, or that offers half of an ability. All other code reads
the result and never probes an objective itself.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from jax import Array, ShapeDtypeStruct

from maskjax.errors import UserError
from maskjax.losses import Loss
from maskjax.masking import Mask
from maskjax.objectives.objective import Batch, Objective, Step, Variables
from maskjax.tokens import Patches, Text

# In place of a workdir: variables that stay as they were made, asked for by name.
RANDOM = "random"


class Evaluates(Protocol):
  """Has a held-out loss other than its training loss."""

  def evaluate(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """Replaces `loss` on held-out data: whole networks, images that are not mixed."""


class Updates(Protocol):
  """Changes its variables itself: teachers, codebooks, students that begin anew."""

  def update(
    self, variables: Variables, batch: Batch, step: Step, sums: Mapping[str, Any]
  ) -> Variables:
    """The variables after an optimizer step.

    Args:
      variables: `params` after the step, `extra` as before it.
      batch: the whole batch.
      step: the step that was just done.
      sums: what the losses of the step carried as `Loss.sums`, added up.
    """


class Pretrained(Protocol):
  """Begins with arrays of other runs."""

  @property
  def pretrained(self) -> Mapping[str, str]:
    """Entries of `extra` that are `Variables` of other runs, and their workdirs.

    A run does not start while one of the workdirs is empty. An entry whose workdir is
    to be `RANDOM` in a config is left out here.
    """


class HasFeatures(Protocol):
  """Encodes whole examples, for probes, finetuning and students."""

  def features(self, variables: Variables, batch: Batch) -> Array:
    """Features [B, N, D], or [B, D]."""


class HasEncoder(Protocol):
  """Has an encoder of patches of images, which can be finetuned."""

  @property
  def encoder(self) -> Any:
    """The network, whose parameters are those under `encoder`."""

  @property
  def patches(self) -> Patches:
    """Cuts a batch into what the encoder reads."""


class Adoption(NamedTuple):
  """What a model takes of another one's parameters, and what it knowingly does not.

  Attributes:
    taken: by the path that an array has in the model, the path that it had in the other
      one, and the array.
    left: paths of the other one's encoder that the model has no use for.
    new: paths of the model's encoder that the other one need not have.
  """

  taken: Mapping[str, tuple[str, Any]]
  left: Sequence[str] = ()
  new: Sequence[str] = ()


class Adopts(Protocol):
  """Begins with a part of another objective's run, under its own head."""

  def adopt(self, pretrained: Mapping[str, Any], like: Mapping[str, Any]) -> Adoption:
    """What it takes of pretrained arrays; those of the same paths without this ability.

    Args:
      pretrained: the other run's arrays by path.
      like: the objective's own by path, or their shapes.
    """


class HasLayers(Protocol):
  """Shows the hidden states of its encoder's blocks, for students."""

  def layers(
    self,
    variables: Variables,
    batch: Batch,
    mask: Mask | None = None,
    *,
    depth: int | None = None,
    attention: bool = False,
  ) -> Any:
    """See `maskjax.models.encoder_layers`."""


class Embeds(Protocol):
  """Has embeddings of documents of its own, for dense retrieval."""

  def embed(self, variables: Variables, batch: Batch) -> Array:
    """Embeddings of each row's first document: [B, E]."""


class HasCodes(Protocol):
  """Gives each patch a code: the ability of a tokenizer."""

  @property
  def grid(self) -> tuple[int, ...]:
    """Sides of the grid of codes of an example."""

  @property
  def num_codes(self) -> int:
    """Size K of the codebook."""

  def codes(self, variables: Variables, batch: Batch) -> Array:
    """The codes of whole examples: int32 [B, N], from 0 to K - 1."""


class HasTargets(Protocol):
  """Predicts something of masked tokens that is computed from the example itself."""

  def targets(self, batch: Batch) -> Array:
    """What is to be predicted at each token: [B, N, T]."""

  def mask(self, batch: Batch, step: Step) -> Mask:
    """The masks of a batch."""

  @property
  def error(self) -> Callable[[Array, Array], Array]:
    """Of each token, from two [..., T] to [...]."""


class Reconstructs(Protocol):
  """Draws what it predicts."""

  def reconstruct(
    self, variables: Variables, batch: Batch, step: Step
  ) -> dict[str, Array]:
    """Pictures [B, H, W, C] by name, in the order in which they are shown."""


class PredictsTokens(Protocol):
  """Predicts masked tokens of text, for decoding."""

  def predict(self, variables: Variables, text: Text, mask: Mask) -> Array:
    """Logits of the tokens at `mask.masked_ids`: float32 [B, M, V]."""


class HasBatchShapes(Protocol):
  """Knows the batches that it trains on, so that plans read no data."""

  def batch_shapes(self, batch_size: int) -> Mapping[str, ShapeDtypeStruct]:
    """The shapes of a batch by name."""


class ChecksVocabulary(Protocol):
  """Reads text, of a vocabulary that has to be the data's."""

  def check_vocabulary(self, vocabulary: Any) -> None:
    """Raises a `UserError` that names the difference.

    Args:
      vocabulary: a `maskjax.tokens.vocabulary.Vocabulary`.
    """


class HasTeacher(Protocol):
  """Has a teacher, which may be evaluated and handed on instead of the student."""

  def teacher_variables(self, variables: Variables) -> Variables:
    """The variables with the teacher's arrays instead of the student's."""


# Abilities of one method, which come and go together where they have several.
PROTOCOLS: tuple[type, ...] = (
  *(Evaluates, Updates, Pretrained, HasFeatures, HasLayers, Embeds, HasCodes),
  *(HasTargets, Reconstructs, PredictsTokens, HasBatchShapes, ChecksVocabulary),
  *(HasTeacher, HasEncoder, Adopts),
)
# Members that systems have for themselves too: only the others show an ability.
_SHARED = ("grid", "mask", "error", "num_codes", "encoder", "patches")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Abilities:
  """What an objective offers; what it does not offer is None.

  Attributes:
    name: of the objective's class, for messages.
    loss: see `Objective`; None for an objective that is but a teacher.
    evaluate: the held-out loss: `Evaluates.evaluate`, or else `loss`.
    update: see `Updates`.
    pretrained: see `Pretrained`; empty without.
    features: see `HasFeatures`.
    layers: see `HasLayers`.
    embed: see `Embeds`.
    codes: see `HasCodes`.
    targets: see `HasTargets`; `mask` and `error` are there with it.
    reconstruct: see `Reconstructs`.
    predict: see `PredictsTokens`.
    batch_shapes: see `HasBatchShapes`.
    check_vocabulary: see `ChecksVocabulary`.
    teacher_variables: see `HasTeacher`.
    encoder: see `HasEncoder`; None without `patches` beside it.
    adopt: see `Adopts`.
  """

  name: str
  loss: Callable[[Variables, Batch, Step], Loss] | None
  evaluate: Callable[[Variables, Batch, Step], Loss] | None
  update: Callable[[Variables, Batch, Step, Mapping[str, Any]], Variables] | None
  pretrained: Mapping[str, str]
  features: Callable[[Variables, Batch], Array] | None
  layers: Callable[..., Any] | None
  embed: Callable[[Variables, Batch], Array] | None
  codes: Callable[[Variables, Batch], Array] | None
  targets: Callable[[Batch], Array] | None
  reconstruct: Callable[[Variables, Batch, Step], dict[str, Array]] | None
  predict: Callable[[Variables, Text, Mask], Array] | None
  batch_shapes: Callable[[int], Mapping[str, ShapeDtypeStruct]] | None
  check_vocabulary: Callable[[Any], None] | None
  teacher_variables: Callable[[Variables], Variables] | None
  encoder: Any
  adopt: Callable[[Mapping[str, Any], Mapping[str, Any]], Adoption] | None


def abilities_of(objective: Any) -> Abilities:
  """Finds out what an objective offers.

  Raises:
    UserError: a method that is missing, has another signature than its protocol, or is
      half of an ability; names the class, the method and what was expected.

  Example:
    >>> from maskjax import systems
    >>> found = abilities_of(systems.mae(encoder="Ti"))
    >>> found.features is not None, found.embed is not None
    (True, False)
  """
  name = type(objective).__name__
  _check_method(objective, Objective, "init")
  if _member(objective, "init") is None:
    raise UserError(f"{name} has no init: expected init(key, batch)")
  _check_method(objective, Objective, "loss")
  for protocol in PROTOCOLS:
    members = [m for m in vars(protocol) if not m.startswith("_")]
    there = [m for m in members if _member(objective, m) is not None]
    if not any(m not in _SHARED for m in there):
      continue
    missing = [m for m in members if m not in there]
    if missing:
      raise UserError(
        f"{name} has {there[0]}, but no {missing[0]}: expected all of "
        f"{', '.join(members)}, see maskjax.objectives.abilities.{protocol.__name__}"
      )
    for member in members:
      _check_method(objective, protocol, member)
  loss = _member(objective, "loss")
  offered = {
    field.name: _member(objective, field.name)
    for field in dataclasses.fields(Abilities)
    if field.name not in ("name", "loss", "evaluate", "pretrained")
  }
  if _member(objective, "patches") is None:
    offered["encoder"] = None
  return Abilities(
    name=name,
    loss=loss,
    evaluate=_member(objective, "evaluate") or loss,
    pretrained=_member(objective, "pretrained") or {},
    **offered,
  )


def needed(found: Any, objective: Any, ability: str, use: str) -> Any:
  """An ability that must be there.

  Args:
    found: the ability, or None.
    objective: whose it should be.
    ability: its name.
    use: what it is for, for the message.

  Raises:
    UserError: it is not there.
  """
  if found is None:
    raise UserError(
      f"{type(objective).__name__} has no {ability}: expected an objective with "
      f"{ability}, for {use}"
    )
  return found


def _member(objective: Any, name: str) -> Any:
  return getattr(objective, name, None)


def _check_method(objective: Any, protocol: type, name: str) -> None:
  """Raises a `UserError` unless a method takes what its protocol's takes."""
  method, wanted = _member(objective, name), vars(protocol)[name]
  if method is None or isinstance(wanted, property):
    return
  class_name = type(objective).__name__
  expected = inspect.signature(wanted)
  expected = expected.replace(parameters=list(expected.parameters.values())[1:])
  plain = f"{name}({', '.join(expected.parameters)})"
  if not callable(method):
    raise UserError(
      f"{class_name}.{name} is of type {type(method).__name__}: "
      f"expected a method {plain}"
    )
  found = inspect.signature(method)
  # What is named otherwise means something else, unless it is named as not used.
  positional = [p for p in found.parameters.values() if p.kind is not p.KEYWORD_ONLY]
  required = [p for p in expected.parameters.values() if p.default is p.empty]
  named_otherwise = any(
    p.name != e.name and p.kind is not p.VAR_POSITIONAL and not p.name.startswith("_")
    for p, e in zip(positional, required, strict=False)
  )
  try:
    found.bind(*[None] * len(required))
    binds = True
  except TypeError:
    binds = False
  if named_otherwise or not binds:
    raise UserError(
      f"{class_name}.{name}({', '.join(found.parameters)}) has another signature: "
      f"expected {plain}"
    )
