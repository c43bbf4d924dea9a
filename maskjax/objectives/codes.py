"""What the systems that predict codes of masked patches have in common."""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
from jax import Array

from maskjax import keys, resolve
from maskjax.errors import UserError
from maskjax.losses import Loss, Mean, cross_entropy
from maskjax.masking import Mask
from maskjax.objectives import tokenizers
from maskjax.objectives.images import ImageObjective, masks
from maskjax.objectives.objective import Batch, Variables
from maskjax.objectives.tokenizers import Tokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodePrediction(ImageObjective):
  """Predicts a tokenizer's codes of masked patches; each adds `loss_under`.

  Attributes:
    tokenizer: gives the codes.
  """

  tokenizer: Tokenizer

  @property
  def pretrained(self) -> dict[str, str]:
    """The tokenizer's run, see `maskjax.objectives.Objective`."""
    workdir = self.tokenizer.workdir
    return {"tokenizer": workdir} if workdir else {}

  def init(self, key: Array, batch: Batch) -> Variables:
    """Parameters for images of the batch's shape, and the tokenizer's arrays."""
    state = self.tokenizer.init(keys.named(key, "tokenizer"), batch)
    return Variables(self.init_model(key, batch), {"tokenizer": state})

  def loss(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """The loss of masked patches, with dropped paths where there are such."""
    rngs = self.drop_path_rngs(batch, key)
    return self._judge(params, extra, batch, key, rngs)

  def evaluate(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """The loss of masked patches, with all paths."""
    return self._judge(params, extra, batch, key, {})

  @abc.abstractmethod
  def loss_under(
    self, mask: Mask, params: Any, batch: Batch, codes: Array, rngs: Mapping[str, Array]
  ) -> Loss:
    """The loss of given masks.

    Args:
      mask: the masks.
      params: see `maskjax.objectives.Objective`.
      batch: see `maskjax.objectives.Objective`.
      codes: of the masked patches, int32 [B, M].
      rngs: generators of the model.
    """

  def predict(
    self,
    mask: Mask,
    params: Any,
    patches: Array,
    rngs: Mapping[str, Array] | None = None,
  ) -> Any:
    """What the model says of the masked patches of [B, N, P]."""
    return self.model.apply({"params": params}, patches, mask, rngs=rngs)

  def _judge(
    self, params: Any, extra: Any, batch: Batch, key: Array, rngs: Mapping[str, Array]
  ) -> Loss:
    mask = self.mask(batch, key)
    codes = mask.take_masked(self.tokenizer.codes(extra["tokenizer"], batch))
    return self.loss_under(mask, params, batch, codes, rngs)


def code_cross_entropy(logits: Array, codes: Array) -> Array:
  """Cross-entropy of logits [..., K] with codes, int [...]: float32 [...]."""
  return cross_entropy(logits, jax.nn.one_hot(codes, logits.shape[-1]))


def accuracy(logits: Array, codes: Array, where: Array) -> Mean:
  """How many of the codes have the highest logit, see `code_cross_entropy`."""
  return Mean.of(logits.argmax(axis=-1) == codes, where)


def build_parts(
  encoder: Any,
  *,
  tokenizer: str | Mapping[str, Any],
  **images: Any,
) -> dict[str, Any]:
  """The fields of a `CodePrediction` but its model, from hyperparameters.

  Args:
    encoder: has a `grid`.
    tokenizer: one of `maskjax.objectives.tokenizers` or an import path, with its
      keywords.
    **images: what `masks` takes.

  Raises:
    UserError: no such tokenizer, or it cuts images otherwise.
  """
  codes: Tokenizer = resolve.build(tokenizers, tokenizer)
  grids = codes.grid, encoder.grid
  if grids[0] != grids[1]:
    found, expected = ("x".join(map(str, grid)) for grid in grids)
    raise UserError(
      f"tokenizer gives {found} codes: expected {expected}, as image_size and "
      "patch_size say"
    )
  return {"tokenizer": codes, **masks(encoder, **images)}
