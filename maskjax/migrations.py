"""Names that configs of earlier versions hold, and what they are called now.

For tools that read the config of an old run.
"""

from collections.abc import Mapping

# Values of a config: names of parts, or import paths.
RENAMED_VALUES: Mapping[str, str] = {
  "anchor_likeness": "anchor_similarity",
  "by_likeness": "maskjax.systems.text.difference_masking:by_similarity",
  "by_rate": "maskjax.systems.text.informask:by_rate",
  "labelled_text": "labeled_text",
  "maskjax.data.word_classes:english": "maskjax.data.taggers:english",
}
