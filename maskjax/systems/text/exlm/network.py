"""Masked language models in which a mask token stands as several states."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from maskjax.masking.mask import gather
from maskjax.models.text import TextEncoder, VocabularyHead, attention_bias
from maskjax.models.transformer import dense_like
from maskjax.systems.text.exlm.alignment import NEVER, occupancy
from maskjax.tokens import Text

# The share of mask tokens to which embeddings are scaled: ESM-2's, 15 % of 80 %.
_USUAL_MASKED = 0.12


class ExpandedLM(nn.Module):
  """An encoder of expanded mask tokens, and the transitions between their states.

  Mask tokens, and a row's first and last token, are `states` tokens each. Attention
  distinguishes them by rotary positions of two axes: the position of the token in its
  document, and the number of the state, 0 for tokens that are not expanded.

  Attributes:
    encoder: with rotary positions.
    states: into how many states a mask token is expanded, k.
    mask_id: the mask token.
    zero_masks: embed mask tokens as zeros, and scale the other tokens by how many there
      are.
  """

  encoder: TextEncoder
  states: int
  mask_id: int
  zero_masks: bool = True

  def setup(self) -> None:
    """Makes the heads: of tokens, and of transitions."""
    encoder = self.encoder
    self.head = VocabularyHead(encoder=encoder)
    shape = (encoder.length * self.states, encoder.width)
    init = encoder.options.drawn.tables
    self.link_positions = self.param("link_positions", init, shape)
    self.link_query = dense_like(encoder, encoder.width)
    self.link_key = dense_like(encoder, encoder.width)
    self.link_gate = dense_like(encoder, encoder.heads)

  def __call__(self, text: Text, ids: Array) -> Array:
    """Logarithms of each token's probability at `ids`, by all paths of the states.

    Args:
      text: [B, N], with mask tokens where tokens are masked.
      ids: int [B, M], ascending.

    Returns:
      float32 [B, M, V], of the tokens that mask tokens stand for.
    """
    logits, links, emits = self.paths(text, ids)
    # [B, M, S] x [B, S, V] -> [B, M, V]
    share = jax.vmap(occupancy)(links, emits)[:, 1:-1]
    likely = jnp.einsum("bms,bsv->bmv", share, jax.nn.softmax(logits))
    return jnp.log(jnp.maximum(likely, jnp.finfo(jnp.float32).tiny))

  def paths(self, text: Text, ids: Array) -> tuple[Array, Array, Array]:
    """What the states may emit, and how a path goes from state to state.

    Args:
      text: see `__call__`.
      ids: see `__call__`.

    Returns:
      Logits of tokens at each state, float32 [B, S, V], where S = k (M + 2): the first
      token's states, those at `ids`, and the last token's; links, float32 [B, S, S],
      see `log_likelihood`; and bool [B, M + 2], which of these tokens are expanded, and
      so emitted.
    """
    x, positions, emits = self._expanded(text, ids)
    rows, length = ids.shape[0], text.token.shape[1]
    # The token's own state first: [B, E, 1, D] and [B, E, k - 1, D] to [B, S, D].
    own = gather(x[:, :length], positions)[:, :, None]
    more = x[:, length:].reshape(*positions.shape, self.states - 1, x.shape[-1])
    states = jnp.concatenate([own, more], axis=2).reshape(rows, -1, x.shape[-1])
    return self.head(states), self._links(states, positions, emits), emits

  def _expanded(self, text: Text, ids: Array) -> tuple[Array, Array, Array]:
    """Features of all tokens and, after them, of all further states.

    Returns:
      [B, N + (k - 1) E, D]; int [B, E], the positions that may be expanded; and bool
      [B, E], which of them are.
    """
    more = self.states - 1
    last = jnp.maximum((~text.is_padding).sum(axis=1, keepdims=True) - 1, 0)
    positions = jnp.concatenate([jnp.zeros_like(last), ids, last], axis=1)
    emits = (gather(text.token, ids) == self.mask_id) & (ids > 0) & (ids < last)
    emits = jnp.pad(emits, ((0, 0), (1, 1)), constant_values=True)
    # [B, E] -> [B, E (k - 1)]; copies of tokens that are not expanded are padding.
    copies = text.take(jnp.repeat(positions, more, axis=1))
    exists = jnp.repeat(emits, more, axis=1)
    copies = dataclasses.replace(copies, segment=jnp.where(exists, copies.segment, 0))
    every = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), text, copies)

    def first_states(positions: Array, emits: Array) -> Array:
      none = jnp.zeros(text.token.shape[1:], int)
      return none.at[positions].max(emits.astype(int))

    further = jnp.tile(jnp.arange(more) + 2, positions.shape[1])
    further = jnp.broadcast_to(further, exists.shape)
    first = jax.vmap(first_states)(positions, emits)
    number = jnp.concatenate([first, further], axis=1)
    encoder = self.encoder
    x = encoder.embed(every)
    x = encoder.transformer(
      self._without_masks(x, every) if self.zero_masks else x,
      bias=attention_bias(every),
      positions=jnp.stack([every.position, number], axis=-1),
    )[-1]
    return encoder.finish(x), positions, emits

  def _without_masks(self, x: Array, text: Text) -> Array:
    """Zeros for mask tokens, and the others scaled up for them: [B, N, D]."""
    is_mask = text.token == self.mask_id
    seen = (~text.is_padding).sum(axis=1)
    masked = (is_mask & ~text.is_padding).sum(axis=1) / jnp.maximum(seen, 1)
    # Rows of mask tokens alone have nothing to scale.
    scale = (1 - _USUAL_MASKED) / jnp.where(masked < 1, 1 - masked, 1)
    x = jnp.where(is_mask[..., None], 0, x)
    return x * scale[:, None, None].astype(x.dtype)

  def _links(self, states: Array, positions: Array, emits: Array) -> Array:
    """Logarithms of transitions, softmax over what is ahead: float32 [B, S, S]."""
    k, heads = self.states, self.encoder.heads
    # The position in the expanded row: [B, E, k] -> [B, S]
    before = jnp.cumsum(emits, axis=1) - emits
    at = (positions + before * (k - 1))[..., None] + jnp.arange(k)
    at = at.reshape(len(positions), -1)
    embedded = self.link_positions[at].astype(states.dtype)
    x = jnp.concatenate([states, embedded], axis=-1)

    def in_heads(x: Array) -> Array:
      return x.reshape(*x.shape[:2], heads, -1).astype(jnp.float32)

    query, key = in_heads(self.link_query(x)), in_heads(self.link_key(x))
    scores = jnp.einsum("bihd,bjhd->bhij", query, key) * query.shape[-1] ** -0.5
    real = jnp.repeat(emits, k, axis=1)
    number = jnp.arange(real.shape[1])
    ahead = (number[None] > number[:, None]) & real[:, None] & real[:, :, None]
    scores = jnp.where(ahead[:, None], scores, NEVER)
    gate = jax.nn.log_softmax(self.link_gate(x).astype(jnp.float32)).swapaxes(1, 2)
    ways = jax.nn.log_softmax(scores) + gate[..., None]
    # Where nothing is ahead, the softmax is of nothing.
    return jnp.where(ahead, jax.nn.logsumexp(ways, axis=1), NEVER)

  def encode(self, text: Text) -> Array:
    """Features of all tokens, none of them masked: [B, N, D]."""
    none = jnp.zeros((text.token.shape[0], 0), jnp.int32)
    return self._expanded(text, none)[0][:, : text.token.shape[1]]
