"""PMLM: probabilistically masked language models, with a uniform prior (u-PMLM).

Draws anew for each row which share of its tokens is masked, all shares alike, and takes
the mean over what is masked of each row. Then each masked number is equally likely, and
the loss is that of a language model over all orders of a text: what comes out writes,
and judges, texts in any order (https://arxiv.org/abs/2004.11579, sections 3.2 and 3.3;
`maskjax.decoding`). Config: `configs/text/pmlm.py`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jax import Array

from maskjax import keys
from maskjax.errors import UserError
from maskjax.losses import Loss, Mean
from maskjax.masking import Mask
from maskjax.models.text import MaskedLM
from maskjax.objectives.objective import Batch, valid
from maskjax.objectives.texts import (
  TextKeywords,
  TextObjective,
  text_parts,
  token_cross_entropy,
)
from maskjax.systems.system import System
from maskjax.tokens import Text

SYSTEM = System(
  name="pmlm",
  family="text",
  paper="arXiv:2004.11579",
  config="configs/text/pmlm.py",
  agrees_with="enumeration of all orders",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbabilisticMasking(TextObjective):
  """The objective of PMLM; `pmlm` makes it from hyperparameters.

  `mask_ratio` is the mean of the shares.

  Attributes:
    highest: the largest share of a row's words that is masked.
  """

  highest: float

  def loss(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """The cross-entropy of the masked tokens, a mean over those of each row."""
    del extra
    mask = self.prior_mask(batch, key)
    text = self.seen(batch, mask, key)
    return self.loss_of(mask, text, params, batch, self.rngs(batch, key))

  def prior_mask(self, batch: Batch, key: Array) -> Mask:
    """Masks that mask from one token to the largest share, each number alike."""
    text = self.text(batch)
    row_keys = keys.example_keys(keys.named(key, "prior"), batch)
    share = jax.vmap(jax.random.uniform)(row_keys)
    most = jnp.maximum(jnp.round(self.highest * text.is_word.sum(axis=-1)), 1)
    count = 1 + jnp.floor(share * most)
    filled = jnp.maximum((~text.is_padding).sum(axis=-1), 1)
    return self.draw(self.sampler, count / filled, batch, key, highest=self.highest)

  def loss_of(
    self,
    mask: Mask,
    text: Text,
    params: Any,
    batch: Batch,
    rngs: Mapping[str, Array] | None = None,
  ) -> Loss:
    """The loss under given masks.

    Args:
      mask: masks at least a token of each row that counts.
      text: the rows as the network sees them.
      params: see `Variables`.
      batch: the rows as they are.
      rngs: generators of the model.
    """
    logits = self.predict(params, text, mask, rngs)
    tokens = mask.take_masked(batch["token"])
    where = mask.is_masked & valid(batch)[:, None]
    count = where.sum(axis=-1)
    errors = jnp.where(where, token_cross_entropy(logits, tokens), 0).sum(axis=-1)
    return Loss.of(
      Mean.of(errors / jnp.maximum(count, 1), count > 0),
      accuracy=Mean.of(logits.argmax(axis=-1) == tokens, where),
    )


def pmlm(
  *,
  mask: str | Mapping[str, Any] = "tokens",
  highest: float = 1.0,
  replaced: Sequence[float] = (0.8, 0.1),
  **text: Unpack[TextKeywords],
) -> ProbabilisticMasking:
  """Makes u-PMLM from hyperparameters.

  Args:
    mask: name of a sampler of `maskjax.masking.words`, or an import path, and its
      keywords.
    highest: the largest share of a row's words that is masked; the smallest is a token.
    replaced: shares of the masked tokens that become mask tokens, and random ones; the
      loss is exactly that over all orders where all become mask tokens.
    **text: see `maskjax.objectives.texts.TextKeywords`.

  Raises:
    UserError: hyperparameters that do not fit each other; names them.
  """
  if not 0 < highest <= 1:
    raise UserError(f"highest={highest}: expected a share above 0 and at most 1")
  encoder, fields = text_parts(
    mask=mask,
    mask_ratio=highest / 2,
    replaced=replaced,
    **text,
  )
  return ProbabilisticMasking(
    model=MaskedLM(encoder=encoder), highest=highest, **fields
  )
