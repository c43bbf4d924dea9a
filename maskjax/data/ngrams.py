"""N-grams: neighboring words that occur together more often than by chance."""

from collections.abc import Collection, Sequence

import numpy as np

from maskjax.data.lexicon import Columns, Lexicon, number_documents
from maskjax.errors import UserError
from maskjax.tokens.vocabulary import Vocabulary


def ngrams(
  *,
  rows: Columns,
  vocabulary: Vocabulary,
  training: Columns,
  bigrams: int = 1000,
  trigrams: int = 500,
  longest: int = 6,
) -> np.ndarray:
  """Splits rows into the n-grams of a lexicon and single tokens.

  The lexicon has the pairs and triples of words with the highest t-statistics, see
  `t_statistics`, without words that have no letter. Each document is split into as few
  n-grams and words as possible (ERNIE-Gram, https://arxiv.org/abs/2010.12148).

  Args:
    rows: the columns to split.
    vocabulary: of their tokens.
    training: columns of the documents that the lexicon is made from.
    bigrams: greatest number of pairs of words in the lexicon; only pairs with a
      statistic above 0 enter.
    trigrams: greatest number of triples.
    longest: greatest number of tokens of an n-gram.

  Returns:
    float32 [R, L]: for the first token of an n-gram its number in the lexicon, from 1
    (pairs up to `bigrams`, triples after that); -1 for its other tokens; 0 elsewhere.

  Raises:
    UserError: `bigrams` or `trigrams` is negative, or both are 0; `longest` is below 2.
  """
  if min(bigrams, trigrams) < 0 or bigrams + trigrams < 1:
    raise UserError(
      f"bigrams={bigrams}, trigrams={trigrams}: expected at least 0, and not both 0"
    )
  if longest < 2:
    raise UserError(f"longest={longest}: expected at least 2")
  lexicon = Lexicon(vocabulary, keep_case=True)
  known, words = lexicon.read(training), lexicon.read(rows)
  documents = number_documents(training).reshape(-1)[known.starts]
  lettered = np.array([any(c.isalpha() for c in word) for word in lexicon.words])
  numbers: dict[tuple[int, ...], int] = {}
  for length, count, first in ((2, bigrams, 1), (3, trigrams, bigrams + 1)):
    found, statistics = t_statistics(known.ids, documents, length)
    order = np.argsort(-statistics, kind="stable")
    fits = (statistics > 0) & lettered[found].all(axis=1)
    best = order[fits[order]][:count]
    numbers |= {tuple(found[i].tolist()): first + n for n, i in enumerate(best)}
  sizes = np.bincount(words.of_token[words.of_token >= 0], minlength=len(words.ids))
  scores = np.zeros(rows["token"].shape, np.float32).reshape(-1)
  borders = words.document_starts(number_documents(rows))
  for part in np.split(np.arange(len(words.ids)), borders):
    ids, tokens = words.ids[part].tolist(), sizes[part].tolist()
    for start, stop in fewest_parts(ids, tokens, numbers.keys(), longest=longest):
      if stop - start > 1:
        begin = words.starts[part[start]]
        scores[begin : begin + sum(tokens[start:stop])] = -1
        scores[begin] = numbers[tuple(ids[start:stop])]
  return scores.reshape(rows["token"].shape)


def t_statistics(
  ids: np.ndarray, documents: np.ndarray, length: int
) -> tuple[np.ndarray, np.ndarray]:
  """The t-statistics of n-grams against independent words.

  That is (p(w) - p'(w)) / sqrt(p(w) (1 - p(w)) / N), where p(w) is the share of an
  n-gram w among all N n-grams, and p'(w) the product of its words' shares.

  Args:
    ids: int [W], the words of a corpus, in their order.
    documents: int [W], the document of each word; no n-gram crosses their borders.
    length: number of words of an n-gram.

  Returns:
    The different n-grams, int [K, length], and their statistics, float64 [K].

  Example:
    >>> found, t = t_statistics(np.array([0, 1, 0, 1, 2]), np.zeros(5), 2)
    >>> found.tolist(), t.round(2).tolist()
    ([[0, 1], [1, 0], [1, 2]], [1.36, 0.42, 0.79])
  """
  count = len(ids) - length + 1
  if count < 1:
    return np.zeros((0, length), int), np.zeros(0)
  size = int(ids.max()) + 1
  keys, same = np.zeros(count, np.int64), np.ones(count, bool)
  for offset in range(length):
    keys = keys * size + ids[offset : offset + count]
    same &= documents[offset : offset + count] == documents[:count]
  keys, counts = np.unique(keys[same], return_counts=True)
  found = np.stack(np.unravel_index(keys, (size,) * length), axis=1)
  alone = np.bincount(ids, minlength=size) / len(ids)
  total = counts.sum()
  share = counts / total
  by_chance = alone[found].prod(axis=1)
  std = np.sqrt(share * (1 - share) / total)
  return found, (share - by_chance) / np.maximum(std, 1e-300)


def fewest_parts(
  ids: Sequence[int],
  tokens: Sequence[int],
  known: Collection[tuple[int, ...]],
  *,
  longest: int,
) -> list[tuple[int, int]]:
  """Splits words into as few parts as possible, each a word or a known n-gram.

  Among several splits of that number it returns the one whose last parts are longest.

  Args:
    ids: the words.
    tokens: the number of tokens of each word.
    known: n-grams of two or three words.
    longest: greatest number of tokens of an n-gram.

  Returns:
    The first word of each part, and the word after its last.

  Example:
    >>> fewest_parts([7, 8, 9, 7], [1] * 4, {(7, 8), (8, 9, 7)}, longest=3)
    [(0, 1), (1, 4)]
  """
  # For the first 0, 1, 2, ... words: the fewest parts, and the start of the last part.
  best = [(0, 0)]
  for stop in range(1, len(ids) + 1):
    ways = [(best[stop - 1][0] + 1, stop - 1)]
    for start in range(max(0, stop - 3), stop - 1):
      fits = sum(tokens[start:stop]) <= longest
      if fits and tuple(ids[start:stop]) in known:
        ways.append((best[start][0] + 1, start))
    best.append(min(ways))
  cuts, stop = [], len(ids)
  while stop:
    start = best[stop][1]
    cuts.append((start, stop))
    stop = start
  return cuts[::-1]
