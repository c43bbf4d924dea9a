"""StructFormer for little data: masked language models that build structure inside.

A parser of convolutions induces a distance between neighboring tokens and a height of
each token, and from them how likely each token depends on each other one. Attention
looks along these dependencies alone, from heads to children and back, so that the loss
of masked language modeling teaches the parser too (https://arxiv.org/abs/2012.00857,
with learned positions and, as a variant, ordinary blocks before the parser, as
https://arxiv.org/abs/2310.20589 has it). Config: `configs/text/structformer.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from maskjax.errors import UserError
from maskjax.models.text import StructFormer
from maskjax.objectives.texts import TextKeywords, text_parts
from maskjax.systems.system import System
from maskjax.systems.text.bert import MaskedLanguageModel

SYSTEM = System(
  name="structformer",
  family="text",
  paper="arXiv:2310.20589",
  config="configs/text/structformer.py",
  agrees_with="equations in NumPy",
)

ENCODER: Mapping[str, Any] = {
  "kind": "roberta",
  "types": 0,
  "norm_last": False,
  "activation": "leaky_relu",
}


def structformer(
  *,
  mask: str | Mapping[str, Any] = "tokens",
  mask_ratio: float = 0.3,
  replaced: Sequence[float] = (1.0, 0.0),
  context_depth: int = 0,
  parser_depth: int = 4,
  conv_size: int = 9,
  **text: Unpack[TextKeywords],
) -> MaskedLanguageModel:
  """Makes StructFormer from hyperparameters.

  Args:
    mask: name of a sampler of `maskjax.masking.words`, or an import path, and its
      keywords.
    mask_ratio: share of a row's tokens that is masked.
    replaced: shares of the masked tokens that become mask tokens, and random ones.
    context_depth: how many of the encoder's blocks stand before the parser and attend
      to all; 0 for the paper's first variant, 4 for its second.
    parser_depth: number of the parser's convolutions.
    conv_size: tokens that each of them reads, an odd number.
    **text: see `maskjax.objectives.texts.TextKeywords`; the encoder's blocks are all
      blocks, normalize before each branch and have a leaky ReLU unless told otherwise.

  Raises:
    UserError: hyperparameters that do not fit each other; names them.
  """
  given = text.get("encoder", "B")
  own = {"size": given} if isinstance(given, str) else given
  text["encoder"] = {**ENCODER, **own}
  encoder, fields = text_parts(
    mask=mask,
    mask_ratio=mask_ratio,
    replaced=replaced,
    **text,
  )
  if not 0 <= context_depth < encoder.depth:
    raise UserError(
      f"context_depth={context_depth}: expected at least 0 and less than "
      f"encoder.depth={encoder.depth}"
    )
  if parser_depth < 1:
    raise UserError(f"parser_depth={parser_depth}: expected at least 1")
  if conv_size < 1 or conv_size % 2 == 0:
    raise UserError(f"conv_size={conv_size}: expected an odd number")
  if encoder.options.norm_last:
    raise UserError("encoder.norm_last=True: expected False, to normalize before")
  if encoder.options.scan:
    raise UserError("scan=True: expected False, since blocks are made one by one")
  if (encoder.embed_width or encoder.width) != encoder.width:
    raise UserError(
      f"encoder.embed_width={encoder.embed_width}: expected none, since the last layer "
      "is the table itself"
    )
  model = StructFormer(
    encoder=encoder,
    context=context_depth,
    parser_depth=parser_depth,
    conv_size=conv_size,
  )
  return MaskedLanguageModel(model=model, **fields)
