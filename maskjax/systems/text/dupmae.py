"""RetroMAE v2: duplex masked auto-encoder for retrieval-oriented language models.

Beside masked language modeling at 30 %, the code of a document's first token has to
tell the whole document, in a decoder of one block that sees but half of its tokens,
other ones at each place (RetroMAE, https://arxiv.org/abs/2205.12035); and the codes of
the other tokens, as logits of which the largest over the document count, have to tell
which words it has (https://arxiv.org/abs/2211.08769). A document's embedding is the
first token's code, projected, and the largest of those logits. Config:
`configs/text/dupmae.py`.
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
from maskjax.models.text import DuplexAutoencoder
from maskjax.models.text.duplex import decoder_bias
from maskjax.objectives.objective import Batch, valid
from maskjax.objectives.texts import (
  TextKeywords,
  TextObjective,
  text_parts,
  token_cross_entropy,
  token_loss,
)
from maskjax.systems.system import System
from maskjax.targets.bag_of_words import bag_errors, bags, members
from maskjax.tokens import Text

SYSTEM = System(
  name="dupmae",
  family="text",
  paper="arXiv:2211.08769",
  config="configs/text/dupmae.py",
  agrees_with="equations in NumPy",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DuplexMae(TextObjective):
  """The three tasks of DupMAE; `dupmae` makes it from hyperparameters.

  Attributes:
    decoder_ratio: share of a row's tokens that each place of the decoder does not see.
    decoder_masks: how many masks are drawn of a row, of which each place takes one.
    bag_weight: of the bags of words; 0 leaves RetroMAE.
    documents: how many of a row's documents have a bag.
    top_k: how many logits of a document are kept in its embedding.
  """

  decoder_ratio: float
  decoder_masks: int
  bag_weight: float
  documents: int
  top_k: int

  def loss(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """Cross-entropies of masked tokens, of all tokens decoded, and of bags."""
    del extra
    mask = self.mask(batch, key)
    seen, masked = self.seen(batch, mask, key), self.masked_from(batch, key)
    rngs = self.rngs(batch, key)
    return self.tasks_under(mask, masked, params, seen, batch, rngs)

  def masked_from(self, batch: Batch, key: Array) -> Array:
    """Which tokens each place of the decoder does not see: bool [B, N, N]."""
    text = self.text(batch)
    length = text.token.shape[1]
    masks = min(self.decoder_masks, length)

    def of_row(key: Array, text: Text, count: Array) -> Array:
      of_masks, of_places = jax.random.split(key)
      drawn = jax.vmap(self.sampler, in_axes=(0, None, None))(
        jax.random.split(of_masks, masks), text, count
      )
      return drawn[jax.random.randint(of_places, (length,), 0, masks)]

    row_keys = keys.example_keys(keys.named(key, "decoder"), batch)
    return jax.vmap(of_row)(row_keys, text, self.masks(self.decoder_ratio, text))

  def tasks_under(
    self,
    mask: Mask,
    masked: Array,
    params: Any,
    seen: Text,
    batch: Batch,
    rngs: Mapping[str, Array] | None = None,
  ) -> Loss:
    """The loss under masks.

    Each task is a mean, over a row's words or its document's bag; it counts as often as
    the row, or the document, has tokens that are masked from the encoder.

    Args:
      mask: which tokens are masked from the encoder.
      masked: see `masked_from`.
      params: see `Variables`.
      seen: the rows as the encoder sees them.
      batch: the rows as they are.
      rngs: generators of the model.
    """
    text, counts = self.text(batch), valid(batch)[:, None]

    def run(model: DuplexAutoencoder) -> tuple[Array, Array]:
      codes = model.encode(seen)
      decoded = model.decode(codes, text, decoder_bias(text, masked))
      return model.tell(codes), model.tell(decoded)

    logits, decoded = self.model.apply({"params": params}, rngs=rngs, method=run)
    told = token_loss(
      mask.take_masked(logits),
      mask.take_masked(batch["token"]),
      mask.is_masked & counts,
    )
    words = text.is_word & counts
    errors = jnp.where(words, token_cross_entropy(decoded, text.token), 0).sum(axis=-1)
    often = (mask.masked & counts).sum(axis=-1)
    errors = errors / jnp.maximum(words.sum(axis=-1), 1)
    whole = Mean((errors * often).sum(), often.sum(dtype=jnp.float32))
    ordinary = jnp.zeros(self.tokens.size, bool).at[self.tokens.ordinary].set(True)
    wanted = bags(text, ordinary, documents=self.documents)
    inside = members(text, self.documents)
    size = (inside & text.is_word[:, None]).sum(axis=-1)
    # Of a document's tokens, those that stand there again weigh nothing.
    share = wanted.sum(axis=-1) / jnp.maximum(size, 1)
    errors = bag_errors(self.largest(logits, text), wanted) * share
    often = (inside & (mask.masked & counts)[:, None]).sum(axis=-1)
    bag = Mean((errors * often).sum(), often.sum(dtype=jnp.float32))
    return Loss(
      told.sum + whole.sum + self.bag_weight * bag.sum,
      told.weight,
      {
        **told.metrics,
        "tokens": Mean(told.sum, told.weight),
        "decoder": whole,
        "bag": bag,
      },
    )

  def largest(self, logits: Array, text: Text) -> Array:
    """The largest logits of each document's ordinary tokens: [B, N, V] to [B, S, V].

    All but a document's first token are ordinary; 0 where there is no document.
    """
    where = members(text, self.documents) & (text.position > 0)[:, None]
    found = [
      jnp.where(where[:, i, :, None], logits, -jnp.inf).max(axis=1)
      for i in range(self.documents)
    ]
    return jnp.where(where.any(axis=-1)[..., None], jnp.stack(found, axis=1), 0)

  def embed(self, params: Any, batch: Batch) -> Array:
    """The embedding of each row's first document: float32 [B, E + V].

    Products of such embeddings add those of both parts. The second has `top_k` entries
    that are not 0.
    """
    first, logits = self.model.apply(
      {"params": params}, self.text(batch), method="embed"
    )
    largest = self.largest(logits, self.text(batch))[:, 0]
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
) -> DuplexMae:
  """Makes DupMAE from hyperparameters.

  Args:
    mask: name of a sampler of `maskjax.masking.words`, or an import path, and its
      keywords; of the encoder's masks and of the decoder's.
    mask_ratio: share of a row's tokens that is masked from the encoder.
    replaced: shares of these that become mask tokens, and random ones.
    decoder_ratio: share of a row's tokens that each place of the decoder does not see.
    decoder_masks: how many masks are drawn of a row for that, at most one a token;
      each place takes one of them.
    bag_weight: weight of the bags of words; 0 leaves RetroMAE.
    documents: how many documents of a row, the first ones, have a bag. 1 is for rows
      of single documents, the paper's; of rows that are packed each document has its
      own first token, which the decoder tells it from, and so a bag of its own.
    embed_dim: length of the first token's part of an embedding. Its projection is
      learned in finetuning alone.
    top_k: how many logits the other part keeps.
    **text: see `maskjax.objectives.texts.TextKeywords`.

  Raises:
    UserError: hyperparameters that do not fit each other; names them.
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
  encoder, fields = text_parts(
    mask=mask,
    mask_ratio=mask_ratio,
    replaced=replaced,
    **text,
  )
  if encoder.embed_width not in (None, encoder.width):
    raise UserError(
      f"encoder.embed_width={encoder.embed_width}: expected encoder.width="
      f"{encoder.width}, since codes stand among the tokens that the decoder sees"
    )
  if encoder.positions == "disentangled":
    raise UserError(
      "encoder.positions='disentangled': expected 'learned' or 'rotary', which tell "
      "the decoder where its places are"
    )
  for name, value, most in (
    ("embed_dim", embed_dim, encoder.width),
    ("top_k", top_k, fields["tokens"].size),
  ):
    if not 1 <= value <= most:
      raise UserError(f"{name}={value}: expected from 1 to {most}")
  return DuplexMae(
    model=DuplexAutoencoder(encoder=encoder, embed_dim=embed_dim),
    decoder_ratio=decoder_ratio,
    decoder_masks=decoder_masks,
    bag_weight=bag_weight,
    documents=documents,
    top_k=top_k,
    **fields,
  )
