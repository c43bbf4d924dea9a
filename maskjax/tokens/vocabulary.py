"""Vocabularies: texts to token ids and back, by the library `tokenizers`."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np

from maskjax import storage
from maskjax.errors import UserError

# The names of the token of each role, in the vocabularies of BERT, RoBERTa and others.
ROLES: Mapping[str, tuple[str, ...]] = {
  "pad": ("[PAD]", "<pad>"),
  "first": ("[CLS]", "<s>"),
  "last": ("[SEP]", "</s>"),
  "mask": ("[MASK]", "<mask>"),
}


class Encoded(NamedTuple):
  """The T tokens of a text.

  Attributes:
    ids: int32 [T].
    words: int32 [T], the number of each token's word, from 0; -1 for a special token
      that occurs in the text, such as a mask token.
    characters: int32 [T], the number of characters of the text that each token covers.
    starts: int32 [T], the index of each token's first character in the text.
  """

  ids: np.ndarray
  words: np.ndarray
  characters: np.ndarray
  starts: np.ndarray

  def part(self, start: int, stop: int) -> "Encoded":
    """The tokens from index `start` up to `stop`, without it."""
    return Encoded(*(column[start:stop] for column in self))


@final
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Vocabulary:
  """A tokenizer, and the tokens of it that have a role.

  Attributes:
    tokenizer: of the library `tokenizers`.
    pad: id of the padding token.
    first: id of the token before every text, such as `[CLS]`.
    last: id of the token after every text, such as `[SEP]`.
    mask: id of the mask token.
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
    """The ids of special tokens, ascending: those with a role, and others.

    They are never masked, and never drawn as random tokens.
    """
    added = self.tokenizer.get_added_tokens_decoder()
    return np.array(sorted(id for id, token in added.items() if token.special))

  def encode(self, texts: Iterable[str]) -> list[Encoded]:
    """Encodes texts, without the special tokens around them."""
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
    """The mask token as it is written in a text, for example `[MASK]`."""
    return self.tokenizer.id_to_token(self.mask)

  def decode(self, ids: Iterable[int]) -> str:
    """Decodes ids to a text, without the special tokens."""
    return self.tokenizer.decode([int(id) for id in ids])

  def save(self, path: str | Path) -> None:
    """Writes a `tokenizer.json`, which the library `transformers` reads as well."""
    storage.path(path).write_text(self.tokenizer.to_str(pretty=True))


def _lengths(offsets: Sequence[tuple[int, int]]) -> np.ndarray:
  """Characters of each token; one that several tokens share counts for the first."""
  first, last = np.array(offsets, np.int32).reshape(-1, 2).T
  before = np.pad(np.maximum.accumulate(last), (1, 0))[:-1]
  return np.maximum(last - np.maximum(first, before), 0)


def load(path: str | Path) -> Vocabulary:
  """Reads a `tokenizer.json`.

  Args:
    path: of the file, or of the folder with it, local or on object storage.

  Raises:
    UserError: no such file, not a tokenizer, or one without a token for some role, such
      as a mask token.
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
  """Trains a byte-level BPE vocabulary (https://arxiv.org/abs/1508.07909).

  Training is deterministic, unlike that of the library's other models. No text has
  unknown tokens.

  Args:
    texts: the training texts.
    size: number of tokens; fewer where the texts have no more pairs.

  Raises:
    UserError: `size` is too small for the 256 bytes and the special tokens.

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
    # A mask token takes the space before it, as the token that it replaces has it.
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
  """Finds the token of each role.

  Args:
    tokenizer: of the library `tokenizers`.
    name: what error messages call it.

  Raises:
    UserError: it has no token of some role; the message has the names that were tried.
  """
  roles = {}
  for role, names in ROLES.items():
    ids = (tokenizer.token_to_id(token) for token in names)
    found = [id for id in ids if id is not None]
    if not found:
      expected = " or ".join(names)
      raise UserError(f"{name} has no {_DESCRIPTIONS[role]} token: expected {expected}")
    roles[role] = found[0]
  return Vocabulary(tokenizer=tokenizer, **roles)


_DESCRIPTIONS = {
  "pad": "padding",
  "first": "first",
  "last": "last",
  "mask": "mask",
}
