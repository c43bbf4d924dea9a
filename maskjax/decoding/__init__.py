"""Masked generation: what trained models write, and how likely they find a text."""

from maskjax.decoding.any_order import Fill, generate, log_likelihood

__all__ = ["Fill", "generate", "log_likelihood"]
