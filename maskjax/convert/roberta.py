"""Masked language models as `RobertaForMaskedLM` of transformers has them.

The layout is that of BERT. Its first place has the row of the table of positions after
that of the token of padding: the third one.
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
