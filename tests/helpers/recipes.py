"""The numbers of the papers' settings, see tests/recipes.tsv."""

import csv
from pathlib import Path

FILE = Path(__file__).parents[1] / "recipes.tsv"
COLUMNS = ["system", "setting", "key", "value", "source"]
# In place of a system: settings of one config, for runs of several systems.
FINETUNE = "finetune"
FINETUNE_CONFIG = "configs/image/finetune.py"
# Of `Variables.params`, within a hundredth, since papers round; see test_settings.py.
PARAMETERS = "parameters"
# A system's default is not in its factory's signature; see test_settings.py.
INITIALIZATION = "objective.initialization"


def rows() -> list[dict[str, str]]:
  with FILE.open(newline="") as opened:
    reader = csv.DictReader(opened, delimiter="\t", quoting=csv.QUOTE_NONE)
    assert reader.fieldnames == COLUMNS
    return list(reader)
