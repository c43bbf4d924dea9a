"""ERNIE-Gram: n-grams predicted as wholes and token by token, and detected."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import optax
from jax import Array

from maskjax import keys
from maskjax.errors import UserError
from maskjax.losses import Loss, Mean
from maskjax.masking import Mask, words
from maskjax.masking.mask import gather
from maskjax.masking.text_policy import text_masking
from maskjax.objectives.objective import Batch, Step, Variables, valid
from maskjax.objectives.text import (
  MaskedTextObjective,
  TextKeywords,
  counted,
  text_parts,
  token_cross_entropy,
  token_loss,
)
from maskjax.systems.text.ernie_gram.network import NgramLM
from maskjax.systems.text.ernie_gram.shortened import Shortened, shortened

# Samplers that may mask a part of an n-gram.
SPLITTERS = tuple(name for name in words.__all__ if name != "ngrams")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ErnieGram(MaskedTextObjective):
  """The objective of ERNIE-Gram; `ernie_gram` makes it from hyperparameters.

  Attributes:
    plausible: share of the masked n-grams in whose place the generator's stand; in that
      of the rest a mask token does.
    detection_weight: of detecting the generator's n-grams.
  """

  plausible: float
  detection_weight: float

  def loss(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """Cross-entropies of n-grams, whole and by token, and of what is not original.

    It is a mean over masked n-grams.
    """
    if "score" not in batch:
      raise UserError(
        "the data has no n-grams: expected statistic='ngrams', see maskjax.data.text"
      )
    mask = self.mask(batch, step)
    short, ids = self.shortened(batch, mask), mask.masked_ids
    counts, rngs = valid(batch)[:, None], self.rngs(batch, step)
    begun = jnp.where(short.starts, self.rows.ids.mask, batch["token"])
    proposed = self.apply(
      variables, short.text, begun, ids, rngs=rngs, method="propose"
    )
    stands, drawn = self.proposals(proposed, batch, mask, step)
    stands &= short.starts
    read = jnp.where(stands, drawn, begun)
    whole, fine, other = self.apply(
      variables,
      *(short.text, read, short.symbols, short.symbol_ids, ids),
      rngs=rngs,
      method="all_logits",
    )
    is_start = gather(short.starts, ids) & counts
    wanted = gather(short.identities, ids)
    generator = token_loss(proposed, wanted, is_start)
    coarse = token_loss(whole, wanted, is_start)
    tokens = mask.take_masked(batch["token"])
    by_token = Mean.of(token_cross_entropy(fine, tokens), counted(mask, batch))
    # A mask token is neither original nor the generator's.
    where = short.text.is_word & (stands | ~short.starts) & counts
    replaced = stands & (read != short.identities)
    errors = optax.sigmoid_binary_cross_entropy(other, replaced.astype(jnp.float32))
    of_row = jnp.where(where, errors, 0).sum(axis=1) / jnp.maximum(where.sum(axis=1), 1)
    often = (short.starts & counts).sum(axis=1)
    detection = Mean((of_row * often).sum(), often.sum(dtype=jnp.float32))
    total = generator.sum + coarse.sum + by_token.sum
    return Loss(
      total + self.detection_weight * detection.sum,
      coarse.weight,
      {
        "generator": Mean(generator.sum, generator.weight),
        "coarse": Mean(coarse.sum, coarse.weight),
        "fine": by_token,
        "detection": detection,
        **coarse.metrics,
      },
    )

  def shortened(self, batch: Batch, mask: Mask) -> Shortened:
    """Rows in which masked n-grams have one position each."""
    return shortened(
      self.rows(batch),
      mask,
      vocab_size=self.rows.ids.size,
      longest=self.model.longest,
    )

  def proposals(
    self, logits: Array, batch: Batch, mask: Mask, step: Step
  ) -> tuple[Array, Array]:
    """At which positions the generator's proposals stand, and what they are.

    Args:
      logits: its own, [B, M, V + G].
      batch: the rows.
      mask: the masked tokens.
      step: see `Step`.

    Returns:
      bool [B, N], of masked tokens alone, and int32 [B, N].
    """
    special = jnp.zeros(logits.shape[-1], bool)
    special = special.at[jnp.asarray(self.rows.ids.special)].set(True)
    logits = jax.lax.stop_gradient(jnp.where(special, -jnp.inf, logits))

    def of_row(key: Array, logits: Array, ids: Array) -> tuple[Array, Array]:
      of_position, of_identity = jax.random.split(key)
      length = mask.masked.shape[1]
      stands = jax.random.uniform(of_position, (length,)) < self.plausible
      drawn = jax.random.categorical(of_identity, logits).astype(jnp.int32)
      return stands, jnp.zeros(length, jnp.int32).at[ids].set(drawn)

    row_keys = keys.example_keys(keys.named(step.key, "propose"), batch)
    stands, drawn = jax.vmap(of_row)(row_keys, logits, mask.masked_ids)
    return stands & mask.masked, drawn


def ernie_gram(
  *,
  num_ngrams: int,
  longest: int = 6,
  mask: str | Mapping[str, Any] = "ngrams",
  mask_ratio: float = 0.15,
  plausible: float = 0.5,
  generator_depth: int = 3,
  detection_weight: float = 1.0,
  **text: Unpack[TextKeywords],
) -> ErnieGram:
  """Makes ERNIE-Gram from hyperparameters.

  The data need `statistic="ngrams"`, see `maskjax.data.statistics`.

  Args:
    num_ngrams: n-grams of the data's lexicon, or more; those of a larger lexicon have
      no logits, and make the loss NaN.
    longest: tokens of an n-gram at most, as in the data.
    mask: name of a sampler of `maskjax.masking.words`, or an import path, and its
      keywords; one that masks n-grams whole.
    mask_ratio: share of a row's tokens that is masked.
    plausible: share of the masked n-grams in whose place the generator's stand.
    generator_depth: blocks of the generator, which are as wide as the encoder's.
    detection_weight: of detecting the generator's n-grams.
    **text: see `maskjax.objectives.text.TextKeywords`.

  Raises:
    UserError: a number, a share, a token or a shape that cannot be, or a sampler that
      splits n-grams; names it.

  Example:
    >>> ernie_gram(vocab_size=30522, num_ngrams=300_000, mask_id=103).model.longest
    6
  """
  for name, value, least in (
    ("num_ngrams", num_ngrams, 1),
    ("longest", longest, 2),
    ("generator_depth", generator_depth, 1),
  ):
    if value < least:
      raise UserError(f"{name}={value}: expected at least {least}")
  given = mask if isinstance(mask, str) else mask.get("name")
  if given in SPLITTERS:
    raise UserError(f"mask={given!r} splits n-grams: expected 'ngrams', or your own")
  if not 0 <= plausible <= 1:
    raise UserError(f"plausible={plausible}: expected a number from 0 to 1")
  if detection_weight < 0:
    raise UserError(f"detection_weight={detection_weight}: expected at least 0")
  text.setdefault("initialization", "bert")
  encoder, rows = text_parts(needs_score=True, **text)
  model = NgramLM(
    encoder=encoder,
    num_ngrams=num_ngrams,
    longest=longest,
    generator_depth=generator_depth,
  )
  return ErnieGram(
    model=model,
    rows=rows,
    masking=text_masking(
      rows.ids, mask=mask, mask_ratio=mask_ratio, replaced=(1.0, 0.0)
    ),
    plausible=plausible,
    detection_weight=detection_weight,
  )
