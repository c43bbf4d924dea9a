"""Retrieves the texts that follow others by embeddings, without any finetuning.

  python benchmarks/text_retrieval.py

writes docs/results/retrieval.md. It needs the runs of benchmarks/text_family.py.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from family import run_folder

from maskjax.data.documents import python_reference
from maskjax.decoding import trained
from maskjax.evaluation import retrieval_scores
from maskjax.objectives.objective import Batch

TABLE = Path(__file__).parent.parent / "docs/results/retrieval.md"
WORDS = 30  # of a query, and of a passage

HEAD = """\
# What texts' embeddings find

Made by `python benchmarks/text_retrieval.py`, after `python benchmarks/text_family.py`.
{words} words of Python's reference ask for the {words} words that follow them, among
{passages} passages. The {queries} queries are of text that was held out, and no
embedding was finetuned for this. Embeddings are compared by their cosines.

| embedding | recall@1 | recall@10 | MRR@10 |
|---|---|---|---|"""

# How a system of masked language modeling alone embeds a text, and the two systems
# that are made for it.
EMBEDDINGS = (
  ("bert", "first"),
  ("bert", "mean"),
  ("bow_pretrain", "own"),
  ("dupmae", "own"),
)


def pairs(split: str) -> Iterator[tuple[str, str]]:
  """Neighboring passages of the reference."""
  for section in python_reference(split=split):
    words = section.split()
    for start in range(0, len(words) - 2 * WORDS + 1, 2 * WORDS):
      middle, stop = start + WORDS, start + 2 * WORDS
      yield " ".join(words[start:middle]), " ".join(words[middle:stop])


def fitting(split: str) -> list[tuple[str, str]]:
  """Those `pairs` of which neither text has more tokens than the systems read."""
  system, found = trained.load(run_folder("bert")), list(pairs(split))
  sizes = [max(len(e.ids) for e in system.vocabulary.encode(pair)) for pair in found]
  most = system.length - 2  # those around a text
  return [pair for pair, size in zip(found, sizes, strict=True) if size <= most]


def common_words(texts: Sequence[str]) -> np.ndarray:
  """Counts of each text's words, less for words that many texts have: [S, W]."""
  known = {
    word: i for i, word in enumerate({w for text in texts for w in text.split()})
  }
  counts = np.zeros((len(texts), len(known)), np.float32)
  for row, text in enumerate(texts):
    for word in text.split():
      counts[row, known[word]] += 1
  return counts * np.log(len(texts) / (counts > 0).sum(axis=0))


def embeddings(name: str, pool: str, texts: list[str], *, learned: bool) -> np.ndarray:
  """What a system makes of texts, before its training or after it."""
  system = trained.load(run_folder(name))
  if not learned:
    rows = system.rows(texts[:1])
    batch: Batch = {column: np.asarray(values) for column, values in rows.items()}
    variables = system.objective.init(jax.random.key(0), batch)
    system = dataclasses.replace(system, variables=variables)
  return system.sentence_embeddings(texts, pool=pool)


def main() -> None:
  tested, others = fitting("test"), fitting("train")
  queries = [first for first, _ in tested]
  passages = [second for _, second in tested] + [p for pair in others for p in pair]
  texts = queries + passages

  def line(label: str, vectors: np.ndarray) -> str:
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    found = retrieval_scores(
      vectors[: len(queries)],
      vectors[len(queries) :],
      np.arange(len(queries)),
      recall=(1, 10),
    )
    return f"| {label} | {' | '.join(f'{value:.3f}' for value in found.values())} |"

  lines = [line("words in common", common_words(texts))]
  for name, pool in EMBEDDINGS:
    for learned in (False, True):
      label = f"{name}, {pool}{'' if learned else ', untrained'}"
      lines.append(line(label, embeddings(name, pool, texts, learned=learned)))
      print(lines[-1], flush=True)
  head = HEAD.format(words=WORDS, passages=len(passages), queries=len(queries))
  TABLE.write_text("\n".join([head, *lines]) + "\n")
  print(f"written: {TABLE}")


if __name__ == "__main__":
  main()
