"""Converts `RobertaForMaskedLM` of Hugging Face Transformers.

The layout is that of BERT, but the first position has the row of the position table
after that of the padding token's id: the third row.
"""

import functools

from maskjax.convert import bert

FAMILY = bert.Family(
  model_type="roberta",
  architecture="RobertaForMaskedLM",
  prefix="roberta",
  head={"dense": "lm_head.dense", "norm": "lm_head.layer_norm", "bias": "lm_head.bias"},
  unused=("roberta.pooler.", "lm_head.decoder."),
  skips=True,
  pad=1,
  defaults={**bert.DEFAULTS, "vocab_size": 50265},
)

MODEL_TYPE = FAMILY.model_type
OBJECTIVE = bert.OBJECTIVE
EXPORTS = bert.EXPORTS

from_hf = functools.partial(bert.from_hf, family=FAMILY)
to_hf = functools.partial(bert.to_hf, family=FAMILY)
