"""Well-known vocabularies by name, for systems made without their tokenizer."""

import dataclasses
from collections.abc import Mapping
from typing import Any, final

from maskjax.errors import UserError, did_you_mean

# The keywords of a text system that a name stands for.
KEYS = ("vocab_size", "pad_id", "mask_id", "special_ids")


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class KnownVocabulary:
  """The numbers of a vocabulary that a text system needs.

  Attributes:
    size: number of tokens, those included that a model has beyond its tokenizer's.
    pad: id of padding.
    mask: id of the token that stands for masked ones.
    special: ids that no text has, ascending.
  """

  size: int
  pad: int
  mask: int
  special: tuple[int, ...]


# Sizes are those of the models' config.json, ids those of tokenizer.json, in the
# repositories on Hugging Face that the comments name.
KNOWN: Mapping[str, KnownVocabulary] = {
  # google-bert/bert-base-uncased; bert-large-uncased has the same.
  "bert-base-uncased": KnownVocabulary(
    size=30522, pad=0, mask=103, special=(0, 100, 101, 102, 103)
  ),
  # google-bert/bert-base-cased; bert-large-cased has the same.
  "bert-base-cased": KnownVocabulary(
    size=28996, pad=0, mask=103, special=(0, 100, 101, 102, 103)
  ),
  # FacebookAI/roberta-base; roberta-large has the same.
  "roberta-base": KnownVocabulary(
    size=50265, pad=1, mask=50264, special=(0, 1, 2, 3, 50264)
  ),
  # answerdotai/ModernBERT-base; ModernBERT-large has the same.
  "modernbert-base": KnownVocabulary(
    size=50368, pad=50283, mask=50284, special=tuple(range(50279, 50285))
  ),
}


def spelled_out(keywords: Mapping[str, Any]) -> dict[str, Any]:
  """Keywords of a text system, with numbers in place of a vocabulary's name.

  Args:
    keywords: may have a `vocabulary`, or those of `KEYS` themselves. An empty name is
      none.

  Raises:
    UserError: there is no such vocabulary, or one of `KEYS` is given as well.

  Example:
    >>> spelled_out({"vocabulary": "roberta-base", "length": 128})["mask_id"]
    50264
  """
  found = dict(keywords)
  name = found.pop("vocabulary", "")
  if not name:
    return found
  for key in KEYS:
    if key in found:
      raise UserError(
        f"vocabulary={name!r} and {key}={found[key]!r}: expected either a vocabulary's "
        "name or its numbers"
      )
  if name not in KNOWN:
    raise UserError(f"no vocabulary {name!r}: {did_you_mean(str(name), KNOWN)}")
  known = KNOWN[name]
  numbers = (known.size, known.pad, known.mask, known.special)
  return {**found, **dict(zip(KEYS, numbers, strict=True))}
