"""Neighboring words that stand together more often than by chance."""

from collections.abc import Collection, Sequence

import numpy as np

from maskjax.data.lexicon import Columns, Lexicon, documents
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
  """Cuts rows into n-grams of a lexicon, and single tokens.

  The lexicon holds the pairs and triples of words of the highest t-statistics, see
  `t_statistics`, words without a letter left out; each document is cut into as few
  n-grams and words as possible (ERNIE-Gram, https://arxiv.org/abs/2010.12148).

  Args:
    rows: the columns that are cut.
    vocabulary: of their tokens.
    training: columns of the documents that the lexicon is made of.
    bigrams: how many pairs of words it holds; fewer where no more are likely.
    trigrams: how many triples.
    longest: tokens of an n-gram at most.

  Returns:
    float32 [R, L]: of the first token of an n-gram its number in the lexicon, from 1 on
    (pairs up to `bigrams`, triples after that); -1 of its other tokens; 0 elsewhere.

  Raises:
    UserError: numbers that cannot be.
  """
  if min(bigrams, trigrams) < 0 or bigrams + trigrams < 1:
    raise UserError(
      f"bigrams={bigrams}, trigrams={trigrams}: expected at least 0, and one in all"
    )
  if longest < 2:
    raise UserError(f"longest={longest}: expected at least 2")
  lexicon = Lexicon(vocabulary, keep_case=True)
  known, asked = lexicon.read(training), lexicon.read(rows)
  parts = documents(training).reshape(-1)[known.starts]
  lettered = np.array([any(c.isalpha() for c in word) for word in lexicon.words])
  numbers: dict[tuple[int, ...], int] = {}
  for length, count, first in ((2, bigrams, 1), (3, trigrams, bigrams + 1)):
    found, statistics = t_statistics(known.ids, parts, length)
    order = np.argsort(-statistics, kind="stable")
    fits = (statistics > 0) & lettered[found].all(axis=1)
    best = order[fits[order]][:count]
    numbers |= {tuple(found[i].tolist()): first + n for n, i in enumerate(best)}
  sizes = np.bincount(asked.of_token[asked.of_token >= 0], minlength=len(asked.ids))
  scores = np.zeros(rows["token"].shape, np.float32).reshape(-1)
  words, borders = np.arange(len(asked.ids)), asked.borders(documents(rows))
  for part in np.split(words, borders):
    ids, tokens = asked.ids[part].tolist(), sizes[part].tolist()
    for start, stop in fewest(ids, tokens, numbers.keys(), longest=longest):
      if stop - start > 1:
        begin = asked.starts[part[start]]
        scores[begin : begin + sum(tokens[start:stop])] = -1
        scores[begin] = numbers[tuple(ids[start:stop])]
  return scores.reshape(rows["token"].shape)


def t_statistics(
  ids: np.ndarray, parts: np.ndarray, length: int
) -> tuple[np.ndarray, np.ndarray]:
  """How sure it is that words do not stand together by chance.

  That is (p(w) - p'(w)) / sqrt(p(w) (1 - p(w)) / N), where an n-gram w has the share
  p(w) of all N there are, and p'(w) is the product of its words' shares.

  Args:
    ids: int [W], the words of a corpus, one after the other.
    parts: int [W], which document each is of; n-grams end with it.
    length: words of an n-gram.

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
  codes, same = np.zeros(count, np.int64), np.ones(count, bool)
  for place in range(length):
    codes = codes * size + ids[place : place + count]
    same &= parts[place : place + count] == parts[:count]
  codes, counts = np.unique(codes[same], return_counts=True)
  found = np.stack(np.unravel_index(codes, (size,) * length), axis=1)
  alone = np.bincount(ids, minlength=size) / len(ids)
  total = counts.sum()
  share = counts / total
  by_chance = alone[found].prod(axis=1)
  std = np.sqrt(share * (1 - share) / total)
  return found, (share - by_chance) / np.maximum(std, 1e-300)


def fewest(
  ids: Sequence[int],
  tokens: Sequence[int],
  known: Collection[tuple[int, ...]],
  *,
  longest: int,
) -> list[tuple[int, int]]:
  """Cuts words into as few parts as possible, each a word or a known n-gram.

  Of several ways it takes the one whose last parts are the longest.

  Args:
    ids: of the words.
    tokens: how many tokens each has.
    known: n-grams of two or three words.
    longest: tokens of an n-gram at most.

  Returns:
    Where each part begins and ends.

  Example:
    >>> fewest([7, 8, 9, 7], [1] * 4, {(7, 8), (8, 9, 7)}, longest=3)
    [(0, 1), (1, 4)]
  """
  # Of the first words: how many parts at least, and where the last of them begins.
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
