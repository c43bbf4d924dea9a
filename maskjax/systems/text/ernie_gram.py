"""ERNIE-Gram: explicitly n-gram masked language modeling.

An n-gram that is masked leaves one mask token, which tells it whole, by its number in a
lexicon; beside the text stand mask symbols, one for each of its tokens, which see the
text alone and tell these. A generator, which tells masked n-grams whole, proposes
plausible ones, that stand in place of mask tokens; where they stand has to be found out
as well (https://arxiv.org/abs/2010.12148). Config: `configs/text/ernie_gram.py`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp
import optax
from jax import Array

from maskjax import keys
from maskjax.errors import UserError
from maskjax.losses import Loss, Mean
from maskjax.masking import Mask, words
from maskjax.masking.mask import gather
from maskjax.models.text.ngram_lm import NgramLM
from maskjax.objectives.objective import Batch, valid
from maskjax.objectives.texts import (
  TextKeywords,
  TextObjective,
  text_parts,
  token_cross_entropy,
  token_loss,
)
from maskjax.systems.system import System
from maskjax.tokens import Text

SYSTEM = System(
  name="ernie_gram",
  family="text",
  paper="arXiv:2010.12148",
  config="configs/text/ernie_gram.py",
  agrees_with="equations in NumPy",
)

# Samplers that may mask a part of an n-gram.
SPLITTERS = tuple(name for name in words.__all__ if name != "ngrams")


class Shortened(NamedTuple):
  """Rows in which each masked n-gram has one place left.

  Attributes:
    text: the rows; what is gone is padding, and positions close up.
    identities: int32 [B, N], see `maskjax.models.text.ngram_lm.NgramLM`, of the rows as
      they are.
    starts: bool [B, N], the places of masked n-grams, and of masked tokens of none.
    asked: [B, M], the places of mask symbols: the position is the n-gram's.
    symbol: int32 [B, M], which token of its n-gram each stands for.
  """

  text: Text
  identities: Array
  starts: Array
  asked: Text
  symbol: Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class ErnieGram(TextObjective):
  """The objective of ERNIE-Gram; `ernie_gram` makes it from hyperparameters.

  Attributes:
    plausible: share of the masked n-grams that the generator's stand for; a mask token
      stands for the rest.
    detection_weight: of finding out the generator's n-grams.
  """

  plausible: float
  detection_weight: float

  def loss(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """Cross-entropies of n-grams, whole and by token, and of what is not original."""
    del extra
    if "score" not in batch:
      raise UserError(
        "the data has no n-grams: expected statistic='ngrams', see maskjax.data.text"
      )
    return self.tasks_under(self.mask(batch, key), params, batch, key)

  def tasks_under(self, mask: Mask, params: Any, batch: Batch, key: Array) -> Loss:
    """The loss under a mask, a mean over masked n-grams."""
    short, ids = self.shortened(batch, mask), mask.masked_ids
    counts, rngs = valid(batch)[:, None], self.rngs(batch, key)
    begun = jnp.where(short.starts, self.tokens.mask, batch["token"])
    proposed = self.model.apply(
      {"params": params}, short.text, begun, ids, rngs=rngs, method="propose"
    )
    stands, drawn = self.proposals(proposed, batch, mask, key)
    stands &= short.starts
    read = jnp.where(stands, drawn, begun)
    whole, fine, other = self.model.apply(
      {"params": params},
      *(short.text, read, short.asked, short.symbol, ids),
      rngs=rngs,
      method="tell",
    )
    is_start = gather(short.starts, ids) & counts
    wanted = gather(short.identities, ids)
    generator = token_loss(proposed, wanted, is_start)
    coarse = token_loss(whole, wanted, is_start)
    is_masked = mask.is_masked & counts
    by_token = Mean.of(
      token_cross_entropy(fine, mask.take_masked(batch["token"])), is_masked
    )
    # Mask tokens are neither.
    where = short.text.is_word & (stands | ~short.starts) & counts
    replaced = read != short.identities
    errors = optax.sigmoid_binary_cross_entropy(
      other, (stands & replaced).astype(jnp.float32)
    )
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
    """Rows in which masked n-grams have one place each."""
    text = self.text(batch)
    assert text.score is not None
    places = jnp.arange(text.token.shape[1])
    goes_on = text.is_word & (text.score < 0)
    begin = jax.lax.cummax(jnp.where(goes_on, 0, places), axis=1)
    gone = mask.masked & goes_on
    before = jnp.cumsum(gone, axis=1)
    before = before - gather(before, places - text.position)
    number = text.score.astype(jnp.int32)
    left = Text(
      token=text.token,
      segment=jnp.where(gone, 0, text.segment),
      position=jnp.where(gone, 0, text.position - before),
      word=jnp.where(gone, -1, text.word),
    )
    ids = mask.masked_ids
    asked = left.take(jnp.where(mask.is_masked, gather(begin, ids), ids))
    return Shortened(
      text=left,
      identities=jnp.where(number > 0, self.tokens.size - 1 + number, text.token),
      starts=mask.masked & ~goes_on,
      asked=dataclasses.replace(
        asked, segment=jnp.where(mask.is_masked, asked.segment, 0)
      ),
      symbol=jnp.minimum(ids - gather(begin, ids), self.model.longest - 1),
    )

  def proposals(
    self, logits: Array, batch: Batch, mask: Mask, key: Array
  ) -> tuple[Array, Array]:
    """Which places the generator's proposals stand at, and what they are.

    Args:
      logits: its own, [B, M, V + G].
      batch: the rows.
      mask: what is masked.
      key: the step's.

    Returns:
      bool [B, N], of masked tokens alone, and int32 [B, N].
    """
    special = jnp.zeros(logits.shape[-1], bool)
    special = special.at[jnp.asarray(self.tokens.special)].set(True)
    logits = jax.lax.stop_gradient(jnp.where(special, -jnp.inf, logits))

    def of_row(key: Array, logits: Array, ids: Array) -> tuple[Array, Array]:
      of_place, of_identity = jax.random.split(key)
      length = mask.masked.shape[1]
      stands = jax.random.uniform(of_place, (length,)) < self.plausible
      drawn = jax.random.categorical(of_identity, logits).astype(jnp.int32)
      return stands, jnp.zeros(length, jnp.int32).at[ids].set(drawn)

    row_keys = keys.example_keys(keys.named(key, "propose"), batch)
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
      no logits, and make the loss no number.
    longest: tokens of an n-gram at most, as in the data.
    mask: name of a sampler of `maskjax.masking.words`, or an import path, and its
      keywords; one that masks n-grams whole.
    mask_ratio: share of a row's tokens that is masked.
    plausible: share of the masked n-grams that the generator's stand for.
    generator_depth: blocks of the generator, which are as wide as the encoder's.
    detection_weight: of finding out the generator's n-grams.
    **text: see `maskjax.objectives.texts.TextKeywords`.

  Raises:
    UserError: hyperparameters that do not fit each other; names them.
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
  encoder, fields = text_parts(
    mask=mask,
    mask_ratio=mask_ratio,
    replaced=(1.0, 0.0),
    **text,
  )
  model = NgramLM(
    encoder=encoder,
    num_ngrams=num_ngrams,
    longest=longest,
    generator_depth=generator_depth,
  )
  return ErnieGram(
    model=model,
    plausible=plausible,
    detection_weight=detection_weight,
    reads_score=True,
    **fields,
  )
