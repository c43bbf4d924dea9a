"""DupMAE: masked tokens, whole documents from their first tokens, and bags of words."""

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
from maskjax.systems.text.dupmae.network import DuplexAutoencoder, decoder_bias
from maskjax.targets.bag_of_words import bag_errors, bags, members
from maskjax.tokens import Text


@dataclasses.dataclass(frozen=True, kw_only=True)
class DupMae(MaskedTextObjective):
  """The three tasks of DupMAE; `dupmae` makes it from hyperparameters.

  Attributes:
    decoder_ratio: share of a row's tokens that each position of the decoder does not
      see.
    decoder_masks: how many masks are drawn of a row, of which each position takes one.
    bag_weight: of the bags of words; 0 leaves RetroMAE.
    documents: how many of a row's documents have a bag.
    top_k: how many logits of a document are kept in its embedding.
  """

  decoder_ratio: float
  decoder_masks: int
  bag_weight: float
  documents: int
  top_k: int

  def loss(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """Cross-entropies of masked tokens, of all tokens decoded, and of bags."""
    mask, decoder_masked = self.mask(batch, step), self.decoder_masked(batch, step)
    return self.loss_under_masks(variables, batch, step, mask, decoder_masked)

  def decoder_masked(self, batch: Batch, step: Step) -> Array:
    """Which tokens each position of the decoder does not see: bool [B, N, N]."""
    text, sampler = self.rows(batch), self.masking.sampler
    length = text.token.shape[1]
    masks = min(self.decoder_masks, length)

    def of_row(key: Array, text: Text, count: Array) -> Array:
      of_masks, of_positions = jax.random.split(key)
      drawn = jax.vmap(sampler, in_axes=(0, None, None))(
        jax.random.split(of_masks, masks), text, count
      )
      return drawn[jax.random.randint(of_positions, (length,), 0, masks)]

    row_keys = keys.example_keys(keys.named(step.key, "decoder"), batch)
    return jax.vmap(of_row)(
      row_keys, text, self.masking.count(self.decoder_ratio, text)
    )

  def loss_under_masks(
    self,
    variables: Variables,
    batch: Batch,
    step: Step,
    mask: Mask,
    decoder_masked: Array,
  ) -> Loss:
    """The loss under masks.

    Each task is a mean, over a row's words or its document's bag; it counts as often as
    the row, or the document, has tokens that are masked from the encoder.

    Args:
      variables: see `Variables`.
      batch: the rows as they are.
      step: see `Step`.
      mask: which tokens are masked from the encoder.
      decoder_masked: see the method of this name.
    """
    text, counts = self.rows(batch), valid(batch)[:, None]
    seen = self.masking.replace(batch, mask, step.key)

    def run(model: DuplexAutoencoder) -> tuple[Array, Array]:
      features = model.encode(seen)
      bias = decoder_bias(text, decoder_masked)
      decoded = model.decode(features, text, bias)
      return model.token_logits(features), model.token_logits(decoded)

    logits, decoded = self.apply(variables, rngs=self.rngs(batch, step), method=run)
    tokens = token_loss(
      mask.take_masked(logits), mask.take_masked(batch["token"]), counted(mask, batch)
    )
    words = text.is_word & counts
    errors = jnp.where(words, token_cross_entropy(decoded, text.token), 0).sum(axis=-1)
    often = (mask.masked & counts).sum(axis=-1)
    errors = errors / jnp.maximum(words.sum(axis=-1), 1)
    whole = Mean((errors * often).sum(), often.sum(dtype=jnp.float32))
    vocabulary = self.rows.ids
    ordinary = jnp.zeros(vocabulary.size, bool).at[vocabulary.ordinary].set(True)
    wanted = bags(text, ordinary, documents=self.documents)
    inside = members(text, self.documents)
    size = (inside & text.is_word[:, None]).sum(axis=-1)
    # Of a document's tokens, those that occur again weigh nothing.
    share = wanted.sum(axis=-1) / jnp.maximum(size, 1)
    errors = bag_errors(self.largest_logits(logits, text), wanted) * share
    often = (inside & (mask.masked & counts)[:, None]).sum(axis=-1)
    bag = Mean((errors * often).sum(), often.sum(dtype=jnp.float32))
    return Loss(
      tokens.sum + whole.sum + self.bag_weight * bag.sum,
      tokens.weight,
      {
        **tokens.metrics,
        "tokens": Mean(tokens.sum, tokens.weight),
        "decoder": whole,
        "bag": bag,
      },
    )

  def largest_logits(self, logits: Array, text: Text) -> Array:
    """The largest logits of each document's ordinary tokens: [B, N, V] to [B, S, V].

    All but a document's first token are ordinary; 0 where there is no document.
    """
    where = members(text, self.documents) & (text.position > 0)[:, None]
    found = [
      jnp.where(where[:, i, :, None], logits, -jnp.inf).max(axis=1)
      for i in range(self.documents)
    ]
    return jnp.where(where.any(axis=-1)[..., None], jnp.stack(found, axis=1), 0)

  def embed(self, variables: Variables, batch: Batch) -> Array:
    """The embedding of each row's first document: float32 [B, E + V].

    Products of such embeddings add those of both parts. The second has `top_k` entries
    that are not 0.
    """
    text = self.rows(batch)
    first, logits = self.apply(variables, text, method="embed_parts")
    largest = self.largest_logits(logits, text)[:, 0]
    least = jax.lax.top_k(largest, self.top_k)[0][:, -1:]
    sparse = jnp.where(largest >= least, largest, 0)
    return jnp.concatenate([first.astype(jnp.float32), sparse], axis=1)


def dupmae(
  *,
  mask: str | Mapping[str, Any] = "whole_words",
  mask_ratio: float = 0.3,
  replaced: Sequence[float] = (0.8, 0.1),
  decoder_ratio: float = 0.5,
  decoder_masks: int = 256,
  bag_weight: float = 0.1,
  documents: int = 1,
  embed_dim: int = 384,
  top_k: int = 384,
  **text: Unpack[TextKeywords],
) -> DupMae:
  """Makes DupMAE from hyperparameters.

  Args:
    mask: name of a sampler of `maskjax.masking.words`, or an import path, and its
      keywords; of the encoder's masks and of the decoder's.
    mask_ratio: share of a row's tokens that is masked from the encoder.
    replaced: shares of these that become mask tokens, and random ones.
    decoder_ratio: share of a row's tokens that each position of the decoder does not
      see.
    decoder_masks: how many masks are drawn of a row for that, at most one a token;
      each position takes one of them.
    bag_weight: weight of the bags of words; 0 leaves RetroMAE.
    documents: how many documents of a row, the first ones, have a bag. 1 is for rows
      of single documents, the paper's; in packed rows each document has its own first
      token, from which the decoder predicts it, and so a bag of its own.
    embed_dim: length of the first token's part of an embedding. Its projection is
      learned in finetuning alone.
    top_k: how many logits the other part keeps.
    **text: see `maskjax.objectives.text.TextKeywords`.

  Raises:
    UserError: a ratio, a number, a share, a token or a shape that cannot be, or an
      encoder whose decoder would not know positions; names it.

  Example:
    >>> dupmae(vocab_size=30522, mask_id=103, bag_weight=0.0).bag_weight
    0.0
  """
  if not 0 < decoder_ratio < 1:
    raise UserError(
      f"decoder_ratio={decoder_ratio}: expected a number between 0 and 1, both excluded"
    )
  for name, value in (("decoder_masks", decoder_masks), ("documents", documents)):
    if value < 1:
      raise UserError(f"{name}={value}: expected at least 1")
  if bag_weight < 0:
    raise UserError(f"bag_weight={bag_weight}: expected at least 0")
  encoder, rows = text_parts(**text)
  if encoder.embed_width not in (None, encoder.width):
    raise UserError(
      f"encoder.embed_width={encoder.embed_width}: expected encoder.width="
      f"{encoder.width}, since features stand among the tokens that the decoder sees"
    )
  if encoder.positions not in ("learned", "rotary"):
    raise UserError(
      "encoder.positions='disentangled': expected 'learned' or 'rotary', by which "
      "the decoder knows its positions"
    )
  for name, value, most in (
    ("embed_dim", embed_dim, encoder.width),
    ("top_k", top_k, rows.ids.size),
  ):
    if not 1 <= value <= most:
      raise UserError(f"{name}={value}: expected from 1 to {most}")
  return DupMae(
    model=DuplexAutoencoder(encoder=encoder, embed_dim=embed_dim),
    rows=rows,
    masking=text_masking(rows.ids, mask=mask, mask_ratio=mask_ratio, replaced=replaced),
    decoder_ratio=decoder_ratio,
    decoder_masks=decoder_masks,
    bag_weight=bag_weight,
    documents=documents,
    top_k=top_k,
  )
