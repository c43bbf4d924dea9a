"""Writes docs/systems.md, the page that lists all systems."""

from collections.abc import Sequence

from maskjax import curves
from maskjax.systems.system import System

HEAD = """\
# Systems

Made by `maskjax list --markdown`. A system agrees with another implementation if both
compute the same numbers from the same weights and masks, to a relative 1e-5, in
`tests/`. Expected values are the last of the curve next to the config, mean and std
over several seeds: `maskjax check --config CONFIG` compares a new run with that curve.

| system | family | paper | config | agrees with | expected |
|---|---|---|---|---|---|"""

DIFFERENCES = """
## What differs from the authors' code on purpose
"""

# How the page shows the last values of a curve; it leaves out those of other names.
SHOWN = {
  "eval/linear": "linear probe {:.1%} \N{PLUS-MINUS SIGN} {:.1%}",
  "eval/knn": "neighbors {:.1%} \N{PLUS-MINUS SIGN} {:.1%}",
  "eval/bits_per_character": "bits per character {:.3f} \N{PLUS-MINUS SIGN} {:.3f}",
}


def page(rows: Sequence[System]) -> str:
  """Writes the table of systems as Markdown, and what differs in them on purpose.

  Args:
    rows: the systems' records, in the order of the table.

  Returns:
    The page, without a final newline.
  """
  differences = [f"- `{row.name}`: {text}" for row in rows for text in row.differs]
  return "\n".join([HEAD, *map(_line, rows), DIFFERENCES, *differences])


def _line(row: System) -> str:
  setting, ends = curves.ends(row.config)
  numbers = [shown.format(*ends[name]) for name, shown in SHOWN.items() if name in ends]
  link = f"[{row.paper}](https://arxiv.org/abs/{row.paper.removeprefix('arXiv:')})"
  config = f"`{row.config}{f':{setting}' if setting else ''}`"
  cells = (row.name, row.family, link, config, row.agrees_with, ", ".join(numbers))
  return f"| {' | '.join(cells)} |"
