"""Evaluation of trained models: held-out loss, probes, retrieval."""

from maskjax.evaluation.features import pooled_features
from maskjax.evaluation.held_out import (
  evaluation_step,
  held_out_loss,
  mean_target_loss,
)
from maskjax.evaluation.knn import knn_accuracy
from maskjax.evaluation.linear import lars_probe_accuracy, linear_probe_accuracy
from maskjax.evaluation.probes import probe_table, run_probes
from maskjax.evaluation.rank import effective_rank
from maskjax.evaluation.retrieval import (
  document_embeddings,
  embedder,
  retrieval_scores,
  retrieve,
)

__all__ = [
  "document_embeddings",
  "effective_rank",
  "embedder",
  "evaluation_step",
  "held_out_loss",
  "knn_accuracy",
  "lars_probe_accuracy",
  "linear_probe_accuracy",
  "mean_target_loss",
  "pooled_features",
  "probe_table",
  "retrieval_scores",
  "retrieve",
  "run_probes",
]
