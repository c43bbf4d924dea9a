"""Paths through states: which state emits which token, summed over all paths.

A path begins at the first state, ends at the last one, goes forward, and emits one
token at each state it visits (the forward algorithm of
https://arxiv.org/abs/2205.07459, section 4.1).
"""

import jax
import jax.numpy as jnp
from jax import Array

# Of what cannot be: finite, so that sums of such logarithms have gradients.
NEVER = -1e30


def log_likelihood(links: Array, emissions: Array, emits: Array) -> Array:
  """The logarithm of the probability of all paths that emit some tokens: float32 [].

  Args:
    links: logarithms of the probabilities of going from a state to another, [S, S].
    emissions: logarithms of the probability of each token at each state, [E, S].
    emits: bool [E], which of the tokens are emitted, the first one among them; the
      others are skipped.

  Example:
    >>> half = jnp.log(jnp.array([[0.0, 0.5, 0.5], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]))
    >>> both = jnp.array([True, True]), jnp.array([True, False, True])
    >>> for emits in both:
    ...   nothing = jnp.zeros((len(emits), 3))
    ...   print(f"{jnp.exp(log_likelihood(half, nothing, emits)):.2f}")
    0.50
    0.50
  """
  links = jnp.maximum(links, NEVER)
  emissions = jnp.maximum(emissions, NEVER)
  start = jnp.full(links.shape[:1], NEVER).at[0].set(emissions[0, 0])

  def emit(so_far: Array, token: tuple[Array, Array]) -> tuple[Array, None]:
    emission, is_emitted = token
    onward = jax.nn.logsumexp(so_far[:, None] + links, axis=0)
    return jnp.where(is_emitted, jnp.maximum(onward + emission, NEVER), so_far), None

  last, _ = jax.lax.scan(emit, start, (emissions[1:], emits[1:]))
  return last[-1]


def occupancy(links: Array, emits: Array) -> Array:
  """How likely each state emits each token, before any token is known.

  Args:
    links: see `log_likelihood`.
    emits: see `log_likelihood`.

  Returns:
    float32 [E, S]; the rows of emitted tokens add to 1, the others are 0.
  """
  # The derivative of a logarithm by one of its terms' is that term's share.
  share = jax.grad(log_likelihood, argnums=1)
  return share(links, jnp.zeros((len(emits), len(links))), emits)
