"""Statistics of a corpus for each token: the column `score`, for systems that need it.

A statistic is a function of `rows`, the columns to score, and of `vocabulary`, both by
keyword. Most also need `training`, the columns of the training documents, so that
held-out rows are scored by the statistics of those; some need `reference`, the columns
of another corpus. A config names the documents of both, see `maskjax.data.text`. A
statistic returns float32 [R, L], 0 outside words.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from maskjax import storage
from maskjax.data import taggers
from maskjax.data.lexicon import Columns, Lexicon, Words, number_documents
from maskjax.data.ngrams import ngrams
from maskjax.data.word_vectors import (
  context_vectors,
  cosine_similarities,
  mean_token_vectors,
)
from maskjax.errors import UserError
from maskjax.resolve import find, find_by_path
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
  """The rate at which to mask each token, by its information with visible tokens.

  As InforMask does (https://arxiv.org/abs/2210.11771, section 3): among several masks
  drawn for a row, the best one has the highest sum of pointwise mutual information
  between masked and visible tokens. The score of a token of the vocabulary is the share
  of its occurrences in the training rows that the best masks mask.

  Args:
    rows: see above.
    vocabulary: see above.
    training: see above.
    mask_ratio: share of a row's tokens in each mask, and the score of tokens that occur
      in no training row.
    window: greatest distance, in tokens, of two tokens of a document that co-occur.
    candidates: number of masks drawn for a row.
    passes: number of passes over the training rows, for small corpora.
    seed: of the masks.

  Raises:
    UserError: `mask_ratio` is outside (0, 1), or another number is below 1.
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

  That is log(p(a, b) / (p(a) p(b))), where p(a, b) is the share of the pair among all
  pairs within a window of a document; 0 for tokens that never co-occur. The table takes
  4 V^2 bytes.

  Args:
    columns: of rows.
    size: number of tokens V of the vocabulary.
    window: greatest distance, in tokens, of two tokens that co-occur.

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
  """The sum of the mutual information of masked and visible tokens, for K masks.

  Args:
    information: [T, T], pointwise mutual information of pairs of tokens.
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
  vectors: str | Mapping[str, Any] | None = None,
  ignored: Collection[str] = tuple(taggers.FUNCTION_WORDS),
) -> np.ndarray:
  """The similarity of each word to the nearest anchor: a word that sets corpora apart.

  As Difference-Masking does (https://arxiv.org/abs/2305.14577, section 3): the anchors
  are the words with the highest `tf_icf`, and the similarity is the cosine of the
  vectors of two words.

  Args:
    rows: see above.
    vocabulary: see above.
    training: columns of the domain that the model is adapted to.
    reference: columns of the corpus that the model was trained on before.
    anchors: number of anchors.
    vectors: path of a `.npy` file of an array [V, D], a vector for each token, such as
      the embedding table of a pretrained model; the vector of a word is the mean of
      those of its tokens. Or the import path of a function and its keywords, which
      gives words, a list, their vectors, [U, D]: `maskjax.convert.pooled:pooled_words`
      for BERT's, which the paper has. By default vectors are computed from the training
      rows, see `maskjax.data.word_vectors`.
    ignored: words that are no anchors, in lower case; by default English function
      words.

  Raises:
    UserError: no such file of vectors, or `anchors` is below 1, or no word of the
      domain can be an anchor.
  """
  if anchors < 1:
    raise UserError(f"anchors={anchors}: expected at least 1")
  lexicon = Lexicon(vocabulary)
  domain, other, words = (lexicon.read(c) for c in (training, reference, rows))
  scores = tf_icf(domain, number_documents(reference), other, len(lexicon.words))
  nearest = lexicon.top_words(scores, anchors, ignored=set(ignored))
  if vectors is None:
    documents = number_documents(training).reshape(-1)[domain.starts]
    table = context_vectors(domain.ids, documents, len(lexicon.words))
  elif isinstance(vectors, str):
    table = mean_token_vectors(vectors, lexicon.tokens, len(vocabulary))
  else:
    given = dict(vectors)
    table = find_by_path(given.pop("name"))(lexicon.words, **given)
  similarity = cosine_similarities(table, table[nearest]).max(axis=1)
  return words.lookup(similarity)


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
  """Numbers the terms of a domain in each row, from 1; 0 outside terms.

  Args:
    rows: see above.
    vocabulary: see above.
    terms: the terms, each of one word or more, or the path of a file with a term on
      each line. Case does not matter, and a longer term takes precedence over those
      within it. By default the words with the highest `tf_icf`.
    training: see above; needed without `terms`.
    reference: columns of general text; needed without `terms`.
    count: number of terms without `terms`.
    ignored: words that are no terms without `terms`, in lower case; by default English
      function words.

  Raises:
    UserError: neither `terms` nor both corpora, or no such file.
  """
  lexicon = Lexicon(vocabulary)
  if terms is not None:
    listed = _lines(terms) if isinstance(terms, str) else terms
    known = {tuple(lexicon.words_in(term)) for term in listed} - {()}
  elif training is None or reference is None:
    raise UserError("terms: expected a list or a file, or training and reference")
  else:
    domain, other = lexicon.read(training), lexicon.read(reference)
    scores = tf_icf(domain, number_documents(reference), other, len(lexicon.words))
    best = lexicon.top_words(scores, count, ignored=set(ignored))
    known = {(number,) for number in best.tolist()}
  return lexicon.read(rows).number_terms(known, number_documents(rows))


def word_classes(
  *, rows: Columns, vocabulary: Vocabulary, tagger: str = "english"
) -> np.ndarray:
  """The class of each word, such as its part of speech, as an index from 0.

  Args:
    rows: see above.
    vocabulary: see above.
    tagger: name of a function of `maskjax.data.taggers`, or an import path like
      `my_lab.tags:tag`, of a function from the words of a document, a list, to a name
      of `maskjax.data.taggers.CLASSES` for each.

  Raises:
    UserError: no such function, or it returned something else.
  """
  tag: Callable[[Sequence[str]], Sequence[str]] = find(taggers, tagger)
  numbers = {name: number for number, name in enumerate(taggers.CLASSES)}
  lexicon = Lexicon(vocabulary, keep_case=True)
  words = lexicon.read(rows)
  classes = np.zeros(len(words.ids), np.float32)
  starts = words.document_starts(number_documents(rows))
  for part in np.split(np.arange(len(words.ids)), starts):
    found = list(tag([lexicon.words[i] for i in words.ids[part]]))
    unknown = [name for name in found if name not in numbers]
    if len(found) != len(part) or unknown:
      what = f"the class {unknown[0]!r}" if unknown else f"{len(found)} classes"
      raise UserError(
        f"tagger={tagger!r} returned {what} for {len(part)} words: expected one of "
        f"{', '.join(numbers)} for each"
      )
    classes[part] = [numbers[name] for name in found]
  return words.to_tokens(classes)


def tf_icf(domain: Words, documents: np.ndarray, other: Words, size: int) -> np.ndarray:
  """Term frequency in a domain, times inverse corpus frequency in another corpus.

  The share of a word among the domain's words times log((N + 1) / (n + 1)), where n of
  the N documents of the other corpus have the word (Reed et al. 2006,
  https://doi.org/10.1109/ICMLA.2006.50): 0 for words that all of them have.

  Args:
    domain: the words of the domain.
    documents: int [R, L], of the other corpus, see `number_documents`.
    other: the words of the other corpus.
    size: number of different words U.

  Returns:
    float [U].
  """
  shares = np.bincount(domain.ids, minlength=size) / max(len(domain.ids), 1)
  of_word = documents.reshape(-1)[other.starts]
  pairs = np.unique(np.stack([other.ids, of_word]), axis=1)
  have = np.bincount(pairs[0], minlength=size)
  total = len(np.unique(of_word))
  return shares * np.log((1 + total) / (1 + have))


def _lines(path: str) -> list[str]:
  file = storage.reach(path)
  if not file.is_file():
    raise UserError(f"terms={path!r}: expected a list, or a file with one on each line")
  return file.read_text().splitlines()
