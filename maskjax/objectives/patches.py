"""What the systems have in common that see an example as patches."""

import abc
import dataclasses
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax import Array

from maskjax import keys
from maskjax.losses import Loss
from maskjax.masking import Mask, Masking
from maskjax.models import Layers, encoder_layers
from maskjax.objectives.objective import Batch, Step, Variables, first_example
from maskjax.tokens import Patches


@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchObjective(abc.ABC):
  """A system on patches of images, clips or spectrograms; each adds `init` and `loss`.

  What else a system is made of are its fields: a target, an error, a teacher, a
  tokenizer.

  Attributes:
    model: the network. Its `encoder` has `patch_tokens`, and its method `encode` gives
      features of whole examples.
    patches: cuts a batch into patches [B, N, P].
    masking: draws masks whose number of masked patches no example changes; None where
      a system masks in another way, or not at all.
  """

  model: Any
  patches: Patches
  masking: Masking | None = None

  @abc.abstractmethod
  def init(self, key: Array, batch: Batch) -> Variables:
    """See `maskjax.objectives.Objective`."""

  @abc.abstractmethod
  def loss(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """See `maskjax.objectives.Objective`."""

  @property
  def encoder(self) -> Any:
    """The network that is finetuned; its parameters are those under `encoder`."""
    return self.model.encoder

  def init_params(self, key: Array, batch: Batch, **how: Any) -> Any:
    """Parameters of the model for examples of the batch's shape.

    Args:
      key: for random numbers.
      batch: see `maskjax.objectives.Objective`.
      **how: keywords of Linen's `init`, for example `method`.
    """
    one = first_example(batch)
    mask = self.mask(one, Step(key))
    return self.model.init(key, self.patches(one), mask, **how)["params"]

  def mask(self, batch: Batch, step: Step) -> Mask:
    """The masks of a batch's examples in a step."""
    assert self.masking is not None, f"{type(self).__name__} draws no masks beforehand"
    return self.masking(batch, step.key)

  def apply(
    self, variables: Variables, *inputs: Any, rngs: Any = None, **how: Any
  ) -> Any:
    """Runs the model: `inputs` are its call's, `how` keywords of Linen's `apply`."""
    return self.model.apply(collections(variables), *inputs, rngs=rngs, **how)

  def features(self, variables: Variables, batch: Batch) -> Array:
    """Features of all patches, none masked: [B, N, D]."""
    tokens = self.apply(variables, self.patches(batch), method="encode")
    return self.model.encoder.patch_tokens(cast(Array, tokens))

  def layers(
    self,
    variables: Variables,
    batch: Batch,
    mask: Mask | None = None,
    *,
    depth: int | None = None,
    attention: bool = False,
  ) -> Layers:
    """Hidden states of the encoder's blocks, see `maskjax.models.encoder_layers`."""
    encoder, params = self.model.encoder, variables.params["encoder"]
    patches = self.patches(batch)
    return encoder_layers(
      encoder, params, patches, mask, depth=depth, attention=attention
    )

  def rngs(self, batch: Batch, step: Step) -> dict[str, Array]:
    """Generators of the model for a training step; none where it drops no paths."""
    if not self.model.encoder.drops_paths:
      return {}
    # The first example's key, so that microbatches drop different ones.
    key = keys.named(step.key, "drop_path")
    return {"drop_path": keys.example_keys(key, batch)[0]}

  def masked_images(self, batch: Batch, mask: Mask) -> Array:
    """A batch's examples, gray where they are masked: [B, ..., C]."""
    patches = self.patches(batch)
    seen = jnp.where(mask.masked[..., None], patches.mean(), patches)
    return self.patches.join(seen)

  def batch_shapes(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of a batch of this many examples."""
    return self.patches.batch_shapes(batch_size)


def collections(variables: Variables) -> dict[str, Any]:
  """Variables as the collections of Linen's `apply`.

  Running statistics, where `extra` has such, are a collection of their own.

  Example:
    >>> collections(Variables({"a": 1}, {"statistics": {"b": 2}, "teacher": {"a": 3}}))
    {'params': {'a': 1}, 'statistics': {'b': 2}}
  """
  if isinstance(variables.extra, dict) and "statistics" in variables.extra:
    return {"params": variables.params, "statistics": variables.extra["statistics"]}
  return {"params": variables.params}
