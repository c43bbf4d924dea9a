"""StructFormer: masked language modeling, of a network with a parser inside."""

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from maskjax.errors import UserError
from maskjax.masking.text_policy import text_masking
from maskjax.objectives.text import MaskedLanguageModel, TextKeywords, text_parts
from maskjax.systems.text.structformer.network import StructFormer

ENCODER: Mapping[str, Any] = {
  "kind": "roberta",
  "types": 0,
  "norm_last": False,
  "norm_embedded": False,
  "drop_embedded": False,
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
  shared_margin: bool = False,
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
    shared_margin: lower the distances of all documents of a batch by as much as any of
      them needs, as the authors' code does. The loss of a row then depends on the rows
      beside it, and so on the microbatches.
    **text: see `maskjax.objectives.text.TextKeywords`; the encoder's blocks are all
      blocks, and unless `encoder` has its own options they normalize before each branch
      alone, have a leaky ReLU, and drop hidden units of MLPs at the rate of `dropout`.

  Raises:
    UserError: a number, a share, a token or a shape that cannot be, or an option of the
      blocks that the constrained ones do not have; names it.

  Example:
    >>> structformer(vocab_size=32000, mask_id=4, context_depth=4).model.context
    4
  """
  given = text.get("encoder", "B")
  own = {"size": given} if isinstance(given, str) else given
  text["encoder"] = {**ENCODER, "mlp_dropout": text.get("dropout", 0.0), **own}
  text.setdefault("initialization", "structformer")
  encoder, rows = text_parts(**text)
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
    shared_margin=shared_margin,
  )
  return MaskedLanguageModel(
    model=model,
    rows=rows,
    masking=text_masking(rows.ids, mask=mask, mask_ratio=mask_ratio, replaced=replaced),
  )
