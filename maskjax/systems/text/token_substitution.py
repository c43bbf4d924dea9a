"""Structural self-supervised objectives: random token substitution, in three ways.

No token becomes a mask token; 15 % are substituted by others. RTS asks of each token
whether it is the original; C-RTS, too, but draws substitutes from the clusters of
tokens that passed for tokens of the original's cluster before; and SLM substitutes at
random and asks what the originals were (https://arxiv.org/abs/2309.08272;
https://arxiv.org/abs/2210.13536). Config: `configs/text/token_substitution.py`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NoReturn, Unpack

import jax
import jax.numpy as jnp
import optax
from jax import Array

from maskjax import keys
from maskjax.errors import UserError
from maskjax.losses import Loss, Mean
from maskjax.masking import Mask, words
from maskjax.masking.substitutes import Clusters, confusing
from maskjax.models.text import TokenDetector
from maskjax.objectives.objective import Batch, valid
from maskjax.objectives.texts import (
  HELD_OUT_RATIO,
  TextKeywords,
  TextObjective,
  text_parts,
)
from maskjax.resolve import did_you_mean
from maskjax.systems.system import System
from maskjax.systems.text.bert import MaskedLanguageModel, bert
from maskjax.targets.token_clusters import token_clusters
from maskjax.tokens import Text

SYSTEM = System(
  name="token_substitution",
  family="text",
  paper="arXiv:2309.08272",
  config="configs/text/token_substitution.py",
  agrees_with="equations in NumPy",
)

TASKS = ("rts", "c_rts", "slm")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenDetection(TextObjective):
  """RTS and C-RTS; `token_substitution` makes them from hyperparameters.

  Attributes:
    clusters: of C-RTS. Its `extra` holds `confusions`, int32 [K, K]: of each cluster
      and each other, how many substitutes passed, less how many were found out, plus 1.
    beta: see `maskjax.masking.substitutes.confusing`.
    loss_weight: what the loss is multiplied by.
  """

  clusters: Clusters | None
  beta: float
  loss_weight: float

  def first_extra(self) -> Any:
    """All clusters alike."""
    if self.clusters is None:
      return ()
    return {"confusions": jnp.ones((len(self.clusters),) * 2, jnp.int32)}

  def update_extra(self, params: Any, extra: Any, step: Array, sums: Any) -> Any:
    """What the discriminator did with the substitutes of the step."""
    del params, step
    return jax.tree.map(jnp.add, extra, dict(sums)) if extra else extra

  def loss(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """Whether each token is the original."""
    mask = self.mask(batch, key)
    text = self.substituted(extra, batch, mask, key)
    found, wrong = self.judge(params, batch, text, self.rngs(batch, key))
    sums = {}
    if self.clusters is not None:
      sums["confusions"] = self.confusions(batch, text, mask, wrong)
    weighted = found.sum * self.loss_weight
    return dataclasses.replace(found, sum=weighted, sums=sums)

  def evaluate(self, params: Any, extra: Any, batch: Batch, key: Array) -> Loss:
    """The same of substitutes drawn uniformly, so that all steps have the same task."""
    del extra
    mask = self.draw(words.tokens, HELD_OUT_RATIO, batch, key)
    uniform = dataclasses.replace(self, clusters=None)
    return self.judge(params, batch, uniform.substituted((), batch, mask, key), {})[0]

  def substituted(self, extra: Any, batch: Batch, mask: Mask, key: Array) -> Text:
    """The rows with other tokens, or by chance the same, where they are masked."""
    text = self.text(batch)
    ordinary = jnp.asarray(self.tokens.ordinary)

    def draw(key: Array, tokens: Array) -> Array:
      if self.clusters is None:
        return jax.random.choice(key, ordinary, tokens.shape)
      return confusing(key, tokens, self.clusters, extra["confusions"], beta=self.beta)

    row_keys = keys.example_keys(keys.named(key, "substitute"), batch)
    drawn = jax.vmap(draw)(row_keys, text.token)
    return text.saying(jnp.where(mask.masked, drawn, text.token))

  def judge(
    self, params: Any, batch: Batch, text: Text, rngs: Mapping[str, Array]
  ) -> tuple[Loss, Array]:
    """The cross-entropy of all words, and which are taken for what they are not."""
    logits = self.model.apply({"params": params}, text, rngs=rngs)
    other = text.token != batch["token"]
    errors = optax.sigmoid_binary_cross_entropy(logits, other.astype(jnp.float32))
    wrong = (logits > 0) != other
    where = text.is_word & valid(batch)[:, None]
    loss = Loss.of(
      Mean.of(errors, where),
      detection=Mean.of(errors, where),
      accuracy=Mean.of(~wrong, where),
      found_out=Mean.of(~wrong, where & other),
    )
    return loss, wrong

  def confusions(self, batch: Batch, text: Text, mask: Mask, wrong: Array) -> Array:
    """What a batch adds to `confusions`: int32 [K, K]."""
    assert self.clusters is not None
    of_token = jnp.asarray(self.clusters.of_token)
    where = mask.masked & (text.token != batch["token"]) & valid(batch)[:, None]
    change = jnp.where(where, jnp.where(wrong, 1, -1), 0)
    none = jnp.zeros((len(self.clusters),) * 2, jnp.int32)
    return none.at[of_token[batch["token"]], of_token[text.token]].add(change)

  def predict(self, *_: Any, **__: Any) -> NoReturn:
    """Tells no tokens.

    Raises:
      UserError: always.
    """
    raise UserError(
      "token_substitution tells no tokens under this task: expected task='slm'"
    )


def token_substitution(
  *,
  task: str = "rts",
  mask: str | Mapping[str, Any] = "tokens",
  mask_ratio: float = 0.15,
  clusters: str | Mapping[str, Any] | None = None,
  beta: float = 2.0,
  loss_weight: float = 50.0,
  head_norm: bool = True,
  **text: Unpack[TextKeywords],
) -> TokenDetection | MaskedLanguageModel:
  """Makes one of the three from hyperparameters.

  Args:
    task: `rts`, `c_rts` or `slm`.
    mask: name of a sampler of `maskjax.masking.words`, or an import path, and its
      keywords: which tokens are substituted.
    mask_ratio: share of a row's tokens that is substituted.
    clusters: of C-RTS: a file that `numpy.save` wrote, the cluster of each token, int
      [V]; or `documents` and `tokenizer` to compute them from, see
      `maskjax.targets.token_clusters`.
    beta: of C-RTS: how much it prefers clusters that confuse; 0 draws all alike.
    loss_weight: of RTS and C-RTS: what the loss is multiplied by.
    head_norm: of RTS and C-RTS: normalize before the last layer, as ELECTRA does not.
    **text: see `maskjax.objectives.texts.TextKeywords`.

  Raises:
    UserError: hyperparameters that do not fit each other; names them.
  """
  if task not in TASKS:
    raise UserError(f"task={task!r}: {did_you_mean(str(task), TASKS)}")
  if (clusters is not None) != (task == "c_rts"):
    raise UserError(
      f"task={task!r} with clusters={clusters!r}: expected clusters for 'c_rts' alone"
    )
  parts: dict[str, Any] = dict(mask=mask, mask_ratio=mask_ratio, **text)
  if task == "slm":
    return bert(replaced=(0.0, 1.0), **parts)
  encoder, fields = text_parts(replaced=(0.0, 1.0), **parts)
  tokens = fields["tokens"]
  return TokenDetection(
    model=TokenDetector(encoder=encoder, normalizes=head_norm),
    clusters=None
    if clusters is None
    else token_clusters(clusters, tokens.ordinary, size=tokens.size),
    beta=beta,
    loss_weight=loss_weight,
    **fields,
  )
