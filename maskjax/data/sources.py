"""The sources that a config can name."""

from maskjax.data.array_records import array_record, tfds
from maskjax.data.images import image_folder, image_pairs
from maskjax.data.labeled import labeled_text, questions, tagged_text
from maskjax.data.memory import arrays, digits, idx
from maskjax.data.shards import packed_rows
from maskjax.data.text import text

__all__ = [
  "array_record",
  "arrays",
  "digits",
  "idx",
  "image_folder",
  "image_pairs",
  "labeled_text",
  "packed_rows",
  "questions",
  "tagged_text",
  "text",
  "tfds",
]
