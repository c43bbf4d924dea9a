"""Texts to ids of tokens and back, by the library `tokenizers`."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np

from maskjax import storage
from maskjax.errors import UserError

# What the tokens of each role are called, by BERT, RoBERTa and others.
ROLES: Mapping[str, tuple[str, ...]] = {
  "pad": ("[PAD]", "<pad>"),
  "first": ("[CLS]", "<s>"),
  "last": ("[SEP]", "</s>"),
  "mask": ("[MASK]", "<mask>"),
}


class Encoded(NamedTuple):
  """The tokens of a text.

  Attributes:
    ids: int32 [T].
    words: int32 [T], of each token the number of its word; -1 for a token of a role
      that stands in the text, such as a mask.
    characters: int32 [T], how many characters of the text each token stands for.
    starts: int32 [T], the character of the text where each token begins.
  """

  ids: np.ndarray
  words: np.ndarray
  characters: np.ndarray
  starts: np.ndarray

  def part(self, start: int, stop: int) -> "Encoded":
    """Some neighboring tokens."""
    return Encoded(*(column[start:stop] for column in self))


@final
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Vocabulary:
  """A tokenizer, and which of its tokens have a role.

  Attributes:
    tokenizer: of the library `tokenizers`.
    pad: id of what fills up rows.
    first: id of what stands before a text.
    last: id of what stands behind it.
    mask: id of what stands for masked tokens.
  """

  tokenizer: Any
  pad: int
  first: int
  last: int
  mask: int

  def __len__(self) -> int:
    return self.tokenizer.get_vocab_size()

  def __eq__(self, other: object) -> bool:
    if not isinstance(other, Vocabulary):
      return NotImplemented
    return self.tokenizer.to_str() == other.tokenizer.to_str()

  def __hash__(self) -> int:
    return hash(self.tokenizer.to_str())

  @property
  def special(self) -> np.ndarray:
    """The ids that no text has: those with a role, and others of the kind, ascending.

    Other tokens may be drawn at random, or masked.
    """
    added = self.tokenizer.get_added_tokens_decoder()
    return np.array(sorted(id for id, token in added.items() if token.special))

  def encode(self, texts: Iterable[str]) -> list[Encoded]:
    """The tokens of texts, without those around a text."""
    encodings = self.tokenizer.encode_batch(list(texts), add_special_tokens=False)
    return [
      Encoded(
        ids=np.array(found.ids, np.int32),
        words=np.array([-1 if w is None else w for w in found.word_ids], np.int32),
        characters=_lengths(found.offsets),
        starts=np.array([first for first, _ in found.offsets], np.int32),
      )
      for found in encodings
    ]

  @property
  def mask_text(self) -> str:
    """What stands in a text for a masked token, for example `[MASK]`."""
    return self.tokenizer.id_to_token(self.mask)

  def decode(self, ids: Iterable[int]) -> str:
    """The text of ids, without those of a role."""
    return self.tokenizer.decode([int(id) for id in ids])

  def save(self, path: str | Path) -> None:
    """Writes `tokenizer.json`, which transformers reads, too."""
    storage.path(path).write_text(self.tokenizer.to_str(pretty=True))


def _lengths(offsets: Sequence[tuple[int, int]]) -> np.ndarray:
  """Characters of each token; of several that share one, the first has it."""
  first, last = np.array(offsets, np.int32).reshape(-1, 2).T
  before = np.pad(np.maximum.accumulate(last), (1, 0))[:-1]
  return np.maximum(last - np.maximum(first, before), 0)


def load(path: str | Path) -> Vocabulary:
  """Reads a `tokenizer.json`.

  Args:
    path: of the file, or of the folder that holds it, local or on object storage.

  Raises:
    UserError: there is no such file, it is of another kind, or has no token of a role,
      for example none that masks; names it.
  """
  from tokenizers import Tokenizer

  file = storage.reach(path)
  file = file / "tokenizer.json" if file.is_dir() else file
  if not file.is_file():
    raise UserError(f"{path}: expected a tokenizer.json, there is none")
  try:
    tokenizer = Tokenizer.from_str(file.read_text())
  except Exception as error:  # the library raises no other type
    raise UserError(f"{file}: expected a tokenizer, but {error}") from error
  return of(tokenizer, name=str(file))


def train_bpe(texts: Iterable[str], *, size: int = 4096) -> Vocabulary:
  """Learns byte pairs (https://arxiv.org/abs/1508.07909) of texts, on bytes.

  The same texts give the same vocabulary, which is not so with the library's other
  kinds. No text has an unknown token.

  Args:
    texts: to learn from.
    size: number of tokens; less than that where the texts have no more.

  Example:
    >>> words = train_bpe(["to be or not to be"], size=300)
    >>> found = words.encode(["to be"])[0]
    >>> words.decode(found.ids), found.words.tolist(), found.characters.tolist()
    ('to be', [0, 1], [2, 3])
  """
  from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    trainers,
  )

  least = 256 + len(ROLES)
  if size < least:
    raise UserError(f"size={size}: expected at least {least}, the bytes and the roles")
  tokenizer = Tokenizer(models.BPE())
  tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  tokenizer.decoder = decoders.ByteLevel()
  trainer = trainers.BpeTrainer(
    vocab_size=size,
    # The space before a mask is the masked token's.
    special_tokens=[
      AddedToken(names[0], special=True, lstrip=role == "mask")
      for role, names in ROLES.items()
    ],
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  tokenizer.train_from_iterator(texts, trainer)
  return of(tokenizer, name="the tokenizer")


def of(tokenizer: Any, *, name: str) -> Vocabulary:
  """Finds the tokens of each role.

  Args:
    tokenizer: of the library `tokenizers`.
    name: what a message calls it.

  Raises:
    UserError: it has no token of a role; names it.
  """
  roles = {}
  for role, names in ROLES.items():
    ids = (tokenizer.token_to_id(token) for token in names)
    found = [id for id in ids if id is not None]
    if not found:
      raise UserError(f"{name} has no token to {_DOES[role]}: expected {names}")
    roles[role] = found[0]
  return Vocabulary(tokenizer=tokenizer, **roles)


_DOES = {
  "pad": "fill up rows",
  "first": "begin a text",
  "last": "end a text",
  "mask": "stand for masked ones",
}
