"""RTS, C-RTS and SLM: what is substituted, and what is predicted."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import optax
from jax import Array

from maskjax import keys
from maskjax.errors import UserError, did_you_mean
from maskjax.losses import Loss, Mean
from maskjax.masking import Mask, words
from maskjax.masking.text_policy import TextMasking, text_masking
from maskjax.models.text import MaskedLM
from maskjax.objectives.objective import Batch, Step, Variables, first_example, valid
from maskjax.objectives.text import (
  HELD_OUT_RATIO,
  MaskedLanguageModel,
  TextKeywords,
  TextRows,
  dropout_rngs,
  text_parts,
)
from maskjax.systems.text.token_substitution.clusters import (
  Clusters,
  confusing,
  token_clusters,
)
from maskjax.systems.text.token_substitution.network import TokenDetector
from maskjax.tokens import Text

TASKS = ("rts", "c_rts", "slm")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenSubstitution:
  """RTS and C-RTS; `token_substitution` makes them from hyperparameters.

  Attributes:
    model: predicts of each token whether it was substituted.
    rows: reads a batch.
    masking: draws the tokens that are substituted.
    clusters: of C-RTS. Its `extra` holds `confusions`, int32 [K, K]: of each cluster
      and each other, how many substitutes passed, less how many were detected, plus 1.
    beta: see `confusing`.
    loss_weight: what the loss is multiplied by.
  """

  model: TokenDetector
  rows: TextRows
  masking: TextMasking
  clusters: Clusters | None
  beta: float
  loss_weight: float

  def init(self, key: Array, batch: Batch) -> Variables:
    """Parameters for rows of the batch's length; at first all clusters are alike."""
    params = self.model.init(key, self.rows(first_example(batch)))["params"]
    if self.clusters is None:
      return Variables(params)
    count = len(self.clusters)
    return Variables(params, {"confusions": jnp.ones((count, count), jnp.int32)})

  def loss(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """The cross-entropy of whether each token is the original."""
    mask = self.masking(batch, step.key)
    text = self.substituted(self.clusters, variables, batch, mask, step)
    rngs = dropout_rngs(self.model.encoder, batch, step)
    loss, wrong = self.detection(variables, batch, text, rngs)
    sums = {}
    if self.clusters is not None:
      sums["confusions"] = self.confusions(self.clusters, batch, text, mask, wrong)
    return dataclasses.replace(loss, sum=loss.sum * self.loss_weight, sums=sums)

  def evaluate(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """The same of substitutes drawn uniformly, so that all steps have the same task."""
    mask = self.masking.draw(
      batch,
      step.key,
      ratio=HELD_OUT_RATIO,
      highest=HELD_OUT_RATIO,
      sampler=words.tokens,
    )
    text = self.substituted(None, variables, batch, mask, step)
    return self.detection(variables, batch, text, {})[0]

  def update(
    self, variables: Variables, batch: Batch, step: Step, sums: Mapping[str, Any]
  ) -> Variables:
    """Counts which substitutes of the step were detected."""
    if self.clusters is None:
      return variables
    extra = jax.tree.map(jnp.add, variables.extra, dict(sums))
    return variables._replace(extra=extra)

  def substituted(
    self,
    clusters: Clusters | None,
    variables: Variables,
    batch: Batch,
    mask: Mask,
    step: Step,
  ) -> Text:
    """The rows with other tokens, or by chance the same, where they are masked.

    Args:
      clusters: those that substitutes are drawn from; uniformly when None.
      variables: see `Variables`.
      batch: the rows.
      mask: which tokens are substituted.
      step: see `Step`.
    """
    text = self.rows(batch)
    ordinary = jnp.asarray(self.rows.ids.ordinary)

    def draw(key: Array, tokens: Array) -> Array:
      if clusters is None:
        return jax.random.choice(key, ordinary, tokens.shape)
      confusions = variables.extra["confusions"]
      return confusing(key, tokens, clusters, confusions, beta=self.beta)

    row_keys = keys.example_keys(keys.named(step.key, "substitute"), batch)
    drawn = jax.vmap(draw)(row_keys, text.token)
    return text.with_tokens(jnp.where(mask.masked, drawn, text.token))

  def detection(
    self, variables: Variables, batch: Batch, text: Text, rngs: Mapping[str, Array]
  ) -> tuple[Loss, Array]:
    """The cross-entropy of all words, and which predictions are wrong: bool [B, N]."""
    params = {"params": variables.params}
    logits: Any = self.model.apply(params, text, rngs=dict(rngs))
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

  def confusions(
    self, clusters: Clusters, batch: Batch, text: Text, mask: Mask, wrong: Array
  ) -> Array:
    """What a batch adds to `confusions`: int32 [K, K]."""
    of_token = jnp.asarray(clusters.of_token)
    where = mask.masked & (text.token != batch["token"]) & valid(batch)[:, None]
    change = jnp.where(where, jnp.where(wrong, 1, -1), 0)
    none = jnp.zeros((len(clusters),) * 2, jnp.int32)
    return none.at[of_token[batch["token"]], of_token[text.token]].add(change)

  def features(self, variables: Variables, batch: Batch) -> Array:
    """Features of all tokens: [B, N, D]."""
    params, text = {"params": variables.params}, self.rows(batch)
    features: Any = self.model.apply(params, text, method="encode")
    return features

  def batch_shapes(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of a batch of this many rows."""
    return self.rows.batch_shapes(batch_size)

  def check_vocabulary(self, vocabulary: Any) -> None:
    """See `TextRows.check_vocabulary`."""
    self.rows.check_vocabulary(vocabulary)


def token_substitution(
  *,
  task: str = "rts",
  mask: str | Mapping[str, Any] = "tokens",
  mask_ratio: float = 0.15,
  clusters: str | Mapping[str, Any] | None = None,
  beta: float = 2.0,
  loss_weight: float = 1.0,
  head_norm: bool = True,
  **text: Unpack[TextKeywords],
) -> TokenSubstitution | MaskedLanguageModel:
  """Makes one of the three from hyperparameters.

  Args:
    task: `rts`, `c_rts` or `slm`.
    mask: name of a sampler of `maskjax.masking.words`, or an import path, and its
      keywords: which tokens are substituted.
    mask_ratio: share of a row's tokens that is substituted.
    clusters: of C-RTS: a file that `numpy.save` wrote, the cluster of each token, int
      [V]; or `documents` and `tokenizer` to compute them from, see `token_clusters`.
    beta: of C-RTS: how much it prefers clusters that confuse; 0 draws all alike.
    loss_weight: of RTS and C-RTS: what the loss is multiplied by, for example 50, as
      ELECTRA does beside its generator's.
    head_norm: of RTS and C-RTS: normalize before the last layer, as ELECTRA does not.
    **text: see `maskjax.objectives.text.TextKeywords`.

  Raises:
    UserError: no such task, clusters without their task, or a share, a token or a shape
      that cannot be; names it.
  """
  if task not in TASKS:
    raise UserError(f"task={task!r}: {did_you_mean(str(task), TASKS)}")
  if (clusters is not None) != (task == "c_rts"):
    raise UserError(
      f"task={task!r} with clusters={clusters!r}: expected clusters for 'c_rts' alone"
    )
  encoder, rows = text_parts(**text)
  masking = text_masking(
    rows.ids, mask=mask, mask_ratio=mask_ratio, replaced=(0.0, 1.0)
  )
  if task == "slm":
    return MaskedLanguageModel(
      model=MaskedLM(encoder=encoder), rows=rows, masking=masking
    )
  found = None
  if clusters is not None:
    found = token_clusters(clusters, rows.ids.ordinary, size=rows.ids.size)
  return TokenSubstitution(
    model=TokenDetector(encoder=encoder, normalizes=head_norm),
    rows=rows,
    masking=masking,
    clusters=found,
    beta=beta,
    loss_weight=loss_weight,
  )
