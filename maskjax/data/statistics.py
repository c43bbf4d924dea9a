"""What a corpus says of the tokens of rows: their `score`, for systems that ask for it.

A statistic is a function of `rows`, the columns that are scored, and of `vocabulary`;
most also need `training`, the columns of the documents that are trained on, so that
held-out rows are scored by what was found there, and some `reference`, those of another
corpus. A config gives the documents of both, see `maskjax.data.text`. It returns
float32 [R, L]; what is no word is 0.
"""

from collections.abc import Callable, Collection, Sequence

import numpy as np

from maskjax import storage
from maskjax.data import taggers
from maskjax.data.lexicon import Columns, Lexicon, Words, documents
from maskjax.data.ngrams import ngrams
from maskjax.data.word_vectors import cosines, from_contexts, of_tokens
from maskjax.errors import UserError
from maskjax.resolve import find
from maskjax.tokens.vocabulary import Vocabulary

__all__ = [
  "anchor_similarity",
  "informative_rates",
  "ngrams",
  "terms",
  "word_classes",
]


def informative_rates(
  *,
  rows: Columns,
  vocabulary: Vocabulary,
  training: Columns,
  mask_ratio: float = 0.15,
  window: int = 11,
  candidates: int = 30,
  passes: int = 1,
  seed: int = 0,
) -> np.ndarray:
  """How often each token should be masked, by how much visible ones say of it.

  As InforMask does (https://arxiv.org/abs/2210.11771, section 3): of several masks
  drawn for a row, that one is the best whose masked tokens have the highest sum of
  pointwise mutual information with its visible ones. One pass over the training rows
  counts how often the best mask masks each token of the vocabulary; these are the
  scores.

  Args:
    rows: see above.
    vocabulary: see above.
    training: see above.
    mask_ratio: share of a row's words that the masks mask, and the score of tokens that
      no training row has.
    window: how many places apart two tokens of a document occur together.
    candidates: masks that are drawn for a row.
    passes: how often masks are drawn for each row, where there are few.
    seed: of the masks.

  Raises:
    UserError: numbers that cannot be.
  """
  if not 0 < mask_ratio < 1:
    raise UserError(f"mask_ratio={mask_ratio}: expected a number between 0 and 1")
  for name, value in dict(window=window, candidates=candidates, passes=passes).items():
    if value < 1:
      raise UserError(f"{name}={value}: expected at least 1")
  size = len(vocabulary)
  table = pointwise_information(training, size, window=window)
  rng = np.random.default_rng(seed)
  seen, masked = np.zeros(size), np.zeros(size)
  for token, segment, word in zip(
    training["token"], training["segment"], training["word"], strict=True
  ):
    token, segment = token[word >= 0], segment[word >= 0]
    count = max(1, round(mask_ratio * len(token)))
    if len(token) <= count:
      continue
    information = table[np.ix_(token, token)] * (segment[:, None] == segment)
    for _ in range(passes):
      order = rng.random((candidates, len(token))).argsort(axis=1)
      masks = order < count
      best = masks[informative_score(information, masks).argmax()]
      seen += np.bincount(token, minlength=size)
      masked += np.bincount(token[best], minlength=size)
  rates = np.where(seen > 0, masked / np.maximum(seen, 1), mask_ratio)
  return np.where(rows["word"] >= 0, rates[rows["token"]], 0).astype(np.float32)


def pointwise_information(columns: Columns, size: int, *, window: int) -> np.ndarray:
  """The pointwise mutual information of tokens: float32 [V, V], in nats.

  That is log p(a, b) / (p(a) p(b)), where p(a, b) is the share of all pairs in a window
  of a document; 0 for tokens that never occur together. It takes 4 V^2 bytes.

  Args:
    columns: of rows.
    size: V, number of tokens.
    window: how many places apart two tokens occur together.

  Example:
    >>> row = dict(token=[[0, 1, 0, 1]], segment=[[1] * 4], word=[[0, 1, 2, 3]])
    >>> row = {name: np.array(column) for name, column in row.items()}
    >>> print(pointwise_information(row, 2, window=1).round(3))
    [[0.    0.693]
     [0.693 0.   ]]
  """
  token, segment, is_word = columns["token"], columns["segment"], columns["word"] >= 0
  together = np.zeros(size * size, np.float32)
  for apart in range(1, min(window, token.shape[1] - 1) + 1):
    both = is_word[:, :-apart] & is_word[:, apart:]
    both &= segment[:, :-apart] == segment[:, apart:]
    first, second = token[:, :-apart][both], token[:, apart:][both]
    pairs, counts = np.unique(
      first.astype(np.int64) * size + second, return_counts=True
    )
    together[pairs] += counts
  table = together.reshape(size, size)
  table = table + table.T
  alone = np.bincount(token[is_word], minlength=size) / max(is_word.sum(), 1)
  at = np.nonzero(table)
  shares = table[at] / table.sum(dtype=np.float64)
  table[at] = np.log(shares / (alone[at[0]] * alone[at[1]]))
  return table


def informative_score(information: np.ndarray, masks: np.ndarray) -> np.ndarray:
  """The sum of what visible tokens say of masked ones, of each of K masks.

  Args:
    information: [T, T], of each token with each other.
    masks: bool [K, T], True where masked.

  Returns:
    float [K].

  Example:
    >>> informative_score(np.ones((3, 3)), np.array([[True, False, False]])).tolist()
    [2.0]
  """
  return ((masks @ information) * ~masks).sum(axis=1)


def anchor_similarity(
  *,
  rows: Columns,
  vocabulary: Vocabulary,
  training: Columns,
  reference: Columns,
  anchors: int = 20,
  vectors: str | None = None,
  ignored: Collection[str] = tuple(taggers.FUNCTION_WORDS),
) -> np.ndarray:
  """How like each word is to the nearest of those that set two corpora apart.

  As Difference-Masking does (https://arxiv.org/abs/2305.14577, section 3): anchors are
  the words of the highest `tf_icf`, and the similarity is the cosine of two words'
  vectors.

  Args:
    rows: see above.
    vocabulary: see above.
    training: see above, of the domain that is trained for.
    reference: columns of what was trained on before.
    anchors: how many.
    vectors: path of an array [V, D] in a `.npy` file, a vector for each token, such as
      the table of a pretrained model; a word has the mean of its tokens'. By default
      vectors are made of the training rows, see `maskjax.data.word_vectors`.
    ignored: words that are no anchors, in lower case; English function words.

  Raises:
    UserError: no such vectors, or no anchors.
  """
  if anchors < 1:
    raise UserError(f"anchors={anchors}: expected at least 1")
  lexicon = Lexicon(vocabulary)
  domain, other, asked = (lexicon.read(c) for c in (training, reference, rows))
  scores = tf_icf(domain, documents(reference), other, len(lexicon.words))
  nearest = lexicon.first(scores, anchors, ignored=set(ignored))
  if vectors is None:
    parts = documents(training).reshape(-1)[domain.starts]
    table = from_contexts(domain.ids, parts, len(lexicon.words))
  else:
    table = of_tokens(vectors, lexicon.tokens, len(vocabulary))
  similarity = cosines(table, table[nearest]).max(axis=1)
  return asked.spread(similarity)


def terms(
  *,
  rows: Columns,
  vocabulary: Vocabulary,
  terms: Sequence[str] | str | None = None,
  training: Columns | None = None,
  reference: Columns | None = None,
  count: int = 200,
  ignored: Collection[str] = tuple(taggers.FUNCTION_WORDS),
) -> np.ndarray:
  """Numbers the terms of a domain that a row has, from 1 on; 0 is no term.

  Args:
    rows: see above.
    vocabulary: see above.
    terms: the terms, of one word or more; or the path of a file with one on each line.
      Case does not matter, and a longer term comes before those within it. By default
      they are the words of the highest `tf_icf`.
    training: see above, where no terms are given.
    reference: columns of general text, where no terms are given.
    count: how many words are terms then.
    ignored: words that are none then, in lower case; English function words.

  Raises:
    UserError: neither terms nor both corpora, or no such file.
  """
  lexicon = Lexicon(vocabulary)
  if terms is not None:
    listed = _lines(terms) if isinstance(terms, str) else terms
    known = {tuple(lexicon.spell(term)) for term in listed} - {()}
  elif training is None or reference is None:
    raise UserError("terms: expected a list or a file, or training and reference")
  else:
    domain, other = lexicon.read(training), lexicon.read(reference)
    scores = tf_icf(domain, documents(reference), other, len(lexicon.words))
    best = lexicon.first(scores, count, ignored=set(ignored))
    known = {(number,) for number in best.tolist()}
  asked = lexicon.read(rows)
  return asked.numbered(known, documents(rows))


def word_classes(
  *, rows: Columns, vocabulary: Vocabulary, tagger: str = "english"
) -> np.ndarray:
  """The class of each word, a number from 0 on, such as its part of speech.

  Args:
    rows: see above.
    vocabulary: see above.
    tagger: name of a function of `maskjax.data.taggers`, or an import path like
      `my_lab.tags:tag`: from the words of a document, a list, to a name of
      `maskjax.data.taggers.CLASSES` for each.

  Raises:
    UserError: no such function, or one that gives something else.
  """
  tag: Callable[[Sequence[str]], Sequence[str]] = find(taggers, tagger)
  numbers = {name: number for number, name in enumerate(taggers.CLASSES)}
  lexicon = Lexicon(vocabulary, keep_case=True)
  asked = lexicon.read(rows)
  classes = np.zeros(len(asked.ids), np.float32)
  for part in np.split(np.arange(len(asked.ids)), asked.borders(documents(rows))):
    found = list(tag([lexicon.words[i] for i in asked.ids[part]]))
    unknown = [name for name in found if name not in numbers]
    if len(found) != len(part) or unknown:
      what = f"the class {unknown[0]!r}" if unknown else f"{len(found)} classes"
      raise UserError(
        f"tagger={tagger!r} gave {what} for {len(part)} words: expected one of "
        f"{', '.join(numbers)} for each"
      )
    classes[part] = [numbers[name] for name in found]
  return asked.each(classes)


def tf_icf(domain: Words, parts: np.ndarray, other: Words, size: int) -> np.ndarray:
  """How much each word is of one corpus and not of another: float [U].

  Its share of the one's words, times its inverse corpus frequency in the other: the
  logarithm of N + 1 over n + 1, where n of N documents have it (Reed and others, 2006,
  https://doi.org/10.1109/ICMLA.2006.50). What all documents have counts nothing.

  Args:
    domain: the words of the one corpus.
    parts: the number of its document for each token of the other, see `documents`.
    other: the words of the other.
    size: U, how many different words there are.
  """
  shares = np.bincount(domain.ids, minlength=size) / max(len(domain.ids), 1)
  of_word = parts.reshape(-1)[other.starts]
  pairs = np.unique(np.stack([other.ids, of_word]), axis=1)
  have = np.bincount(pairs[0], minlength=size)
  total = len(np.unique(of_word))
  return shares * np.log((1 + total) / (1 + have))


def _lines(path: str) -> list[str]:
  file = storage.reach(path)
  if not file.is_file():
    raise UserError(f"terms={path!r}: expected a list, or a file with one on each line")
  return file.read_text().splitlines()
