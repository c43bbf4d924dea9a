"""Masked language models against transformers, padded and packed; weights both ways."""

import dataclasses
import functools
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.arrays import assert_close

from maskjax import config as configs
from maskjax.convert import bert as bert_layout
from maskjax.convert import (
  deberta_v2,
  electra,
  modernbert,
  roberta,
  safetensors,
  weights,
)
from maskjax.errors import UserError
from maskjax.masking import Mask
from maskjax.models import stack_blocks
from maskjax.objectives import Variables
from maskjax.objectives.text import token_loss
from maskjax.systems import bert, token_substitution
from maskjax.tokens import Text

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

VOCAB, LENGTH = 23, 14
SHAPE = dict(
  vocab_size=VOCAB,
  hidden_size=8,
  num_hidden_layers=3,
  num_attention_heads=2,
  intermediate_size=12,
)
CASES = {
  "bert": (bert_layout, dict(max_position_embeddings=LENGTH, layer_norm_eps=1e-3)),
  "roberta": (roberta, dict(max_position_embeddings=LENGTH + 2, layer_norm_eps=1e-3)),
  "modernbert": (
    modernbert,
    dict(max_position_embeddings=LENGTH, norm_eps=1e-3, local_attention=6),
  ),
}
DEBERTA = dict(
  max_position_embeddings=LENGTH,
  layer_norm_eps=1e-3,
  relative_attention=True,
  norm_rel_ebd="layer_norm",
  share_att_key=True,
  pos_att_type=["c2p", "p2c"],
  position_biased_input=False,
)
CASES |= {
  "deberta-v2": (deberta_v2, dict(**DEBERTA, position_buckets=4)),
  "deberta-v2, all distances": (deberta_v2, DEBERTA),
}
CLASSES = {
  "bert": "Bert",
  "roberta": "Roberta",
  "modernbert": "ModernBert",
  "deberta-v2": "DebertaV2",
  "deberta-v2, all distances": "DebertaV2",
}
# Documents of these lengths: packed into one row, and one in each.
PACKED = (5, 9)
RNG = np.random.default_rng(0)
TOKENS = RNG.integers(4, VOCAB, size=(2, LENGTH), dtype=np.int32)
MASKED = np.zeros((2, LENGTH), bool)
MASKED[0, [1, 7, 12]] = MASKED[1, [2, 6, 10]] = True


@functools.cache
def make_theirs(case):
  """A tiny model of theirs, every parameter of it random."""
  ids = dict(pad_token_id=1, bos_token_id=0, eos_token_id=2)
  more = {"cls_token_id": 0, "sep_token_id": 2} if case == "modernbert" else {}
  config = getattr(transformers, f"{CLASSES[case]}Config")(
    **SHAPE, **CASES[case][1], **ids, **more
  )
  model = getattr(transformers, f"{CLASSES[case]}ForMaskedLM")(config)
  rng = np.random.default_rng(0)
  with torch.no_grad():
    for name, parameter in model.named_parameters():
      center = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
      noise = rng.normal(size=tuple(parameter.shape))
      parameter.copy_(torch.from_numpy(center + 0.3 * noise))
  return model.eval()


@functools.cache
def written(case):
  """What they write of a model of theirs: its config and its tensors."""
  with tempfile.TemporaryDirectory() as folder:
    make_theirs(case).save_pretrained(folder)
    return safetensors.read(folder)


def text_of(lengths):
  """Rows whose documents have these lengths, the rest filled."""
  parts = [np.arange(n) for n in lengths]
  filled = np.concatenate([*parts, np.zeros(LENGTH - sum(lengths), int)])
  segments = np.repeat(np.arange(1, len(lengths) + 1), lengths)
  segments = np.pad(segments, (0, LENGTH - sum(lengths)))
  rows = [np.tile(row, (2, 1)).astype(np.int32) for row in (filled, segments)]
  position, segment = rows
  return Text(
    token=jnp.array(TOKENS),
    segment=jnp.array(segment),
    position=jnp.array(position),
    word=jnp.where(segment > 0, position, -1),
  )


def run_theirs(case, lengths):
  """Logits [B, N, V] of each document by itself, at the positions of the row."""
  model = make_theirs(case)
  logits, start = np.zeros((2, LENGTH, VOCAB), np.float32), 0
  for length in lengths:
    part = slice(start, start + length)
    tokens = np.full((2, LENGTH), 1, np.int64)  # padded
    tokens[:, :length] = TOKENS[:, part]
    seen = np.arange(LENGTH) < length
    # RoBERTa makes positions of what is no padding.
    with torch.no_grad():
      found = model(
        input_ids=torch.from_numpy(tokens),
        attention_mask=torch.from_numpy(np.tile(seen, (2, 1)).astype(np.int64)),
      ).logits
    logits[:, part] = found[:, :length].numpy()
    start += length
  return logits


@pytest.mark.parametrize("lengths", [(LENGTH,), (9,), PACKED], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_logits_and_loss(case, lengths):
  converter = CASES[case][0]
  hyperparameters, params = converter.from_hf(*written(case))
  objective = bert(**hyperparameters)
  text = text_of(lengths)
  masked = jnp.array(MASKED) & ~text.is_padding
  mask = Mask.at_most(masked, num_masked=3, spare=text.is_padding)
  logits = jax.jit(objective.predict)(Variables(params), text, mask)
  theirs = run_theirs(case, lengths)
  expected = np.take_along_axis(theirs, np.asarray(mask.masked_ids)[..., None], axis=1)
  where = np.asarray(mask.is_masked)
  assert_close(np.asarray(logits)[where], expected[where])
  # Their loss is the mean over all tokens with a label.
  labels = np.where(np.asarray(masked), TOKENS, -100).astype(np.int64)
  loss = torch.nn.functional.cross_entropy(
    torch.from_numpy(theirs).reshape(-1, VOCAB), torch.from_numpy(labels).reshape(-1)
  )
  ours = token_loss(logits, mask.take_masked(text.token), mask.is_masked)
  assert_close(ours.value(), loss.numpy())


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_weights_come_back(case, scan):
  converter = CASES[case][0]
  config, tensors = written(case)
  hyperparameters, params = converter.from_hf(config, tensors)
  if scan and case == "modernbert":
    with pytest.raises(UserError, match="scan=True: expected norm_first=True"):
      bert(**hyperparameters, scan=True)
    return
  stacked = stack_blocks(params) if scan else params
  again, found = converter.to_hf(hyperparameters, stacked)
  for key, value in again.items():
    assert value in (None, config.get(key, value)), key
  assert found.keys() <= tensors.keys()
  rows = slice(2, None) if case == "roberta" else slice(None)
  for name, tensor in found.items():
    at = rows if "position" in name else slice(None)
    np.testing.assert_array_equal(tensor[at], tensors[name][at])


@pytest.mark.parametrize("case", CASES)
def test_a_folder_of_ours_loads_there_and_comes_back(case, tmp_path):
  setting = configs.load("configs/text/mask40.py:small")
  setting.objective = dict(
    name="mask40",
    vocab_size=VOCAB,
    length=LENGTH,
    encoder=dict(kind=case.split(",")[0], width=8, depth=3, heads=2),
  )
  theirs = tmp_path / "theirs"
  make_theirs(case).save_pretrained(theirs)
  mlm_setting = setting.copy_and_resolve_references()
  mlm_setting.objective.name = "bert"
  weights.import_weights(theirs, mlm_setting, tmp_path / "run")
  weights.export_weights(tmp_path / "run", tmp_path / "ours")
  model = getattr(transformers, f"{CLASSES[case]}ForMaskedLM").from_pretrained(
    tmp_path / "ours"
  )
  tokens = torch.from_numpy(TOKENS.astype(np.int64))
  with torch.no_grad():
    models = model.eval(), make_theirs(case)
    found, expected = (model(input_ids=tokens).logits for model in models)
  assert_close(found.numpy(), expected.numpy())


@pytest.mark.parametrize("case", CASES)
def test_what_does_not_fit_is_named(case):
  converter = CASES[case][0]
  config, tensors = written(case)
  name = next(n for n in tensors if n.endswith("embeddings.weight"))
  short = {**tensors, name: tensors[name][:-1]}
  with pytest.raises(UserError, match="1 misshapen"):
    converter.from_hf({**config, "vocab_size": VOCAB}, short)
  with pytest.raises(UserError, match="model_type='gpt2'"):
    converter.from_hf({**config, "model_type": "gpt2"}, tensors)


def test_only_documents_of_their_own_are_seen():
  shape = dict(width=8, depth=2, heads=2)
  objective = bert(vocab_size=VOCAB, length=LENGTH, encoder=shape)
  text = text_of(PACKED)

  def batch(text):
    return {name: column for name, column in vars(text).items() if column is not None}

  params = objective.init(jax.random.key(0), batch(text)).params
  other = text.with_tokens(text.token.at[:, 7].add(-1))
  first, second = (
    objective.features(Variables(params), batch(t)) for t in (text, other)
  )
  np.testing.assert_array_equal(first[:, :5], second[:, :5])
  assert (first[:, 5:] != second[:, 5:]).any(axis=-1).all()


@pytest.mark.parametrize("embedding_size", [4, 8])
@pytest.mark.parametrize("lengths", [(LENGTH,), (9,), PACKED], ids=str)
def test_electra(lengths, embedding_size):
  """A discriminator's logits and loss, and its weights both ways."""
  config = transformers.ElectraConfig(
    **SHAPE,
    embedding_size=embedding_size,
    max_position_embeddings=LENGTH,
    layer_norm_eps=1e-3,
  )
  model = transformers.ElectraForPreTraining(config)
  rng = np.random.default_rng(0)
  with torch.no_grad():
    for name, parameter in model.named_parameters():
      center = 1.0 if "Norm" in name and name.endswith("weight") else 0.0
      noise = rng.normal(size=tuple(parameter.shape))
      parameter.copy_(torch.from_numpy(center + 0.3 * noise))
  with tempfile.TemporaryDirectory() as folder:
    model.save_pretrained(folder)
    config, tensors = safetensors.read(folder)
  hyperparameters, params = electra.from_hf(config, tensors)
  objective = token_substitution(**hyperparameters)
  text = text_of(lengths)
  logits = np.asarray(objective.model.apply({"params": params}, text))
  labels = rng.integers(0, 2, size=(2, LENGTH))
  losses, start = [], 0
  for length in lengths:
    part = slice(start, start + length)
    given = torch.from_numpy(TOKENS[:, part].astype(np.int64))
    with torch.no_grad():
      theirs = model.eval()(given, labels=torch.from_numpy(labels[:, part]))
    assert_close(logits[:, part], theirs.logits.numpy())
    losses.append((float(theirs.loss), length))
    start += length
  original = text.token + jnp.array(labels)  # where it was another token
  batch = {
    **{name: column for name, column in vars(text).items() if column is not None},
    "token": original,
    "word": jnp.where(text.is_padding, -1, 0),
  }
  seen = dataclasses.replace(text, word=batch["word"])
  ours, _ = objective.detection(Variables(params), batch, seen, {})
  expected = sum(loss * length for loss, length in losses) / start
  assert_close(ours.value(), np.float32(expected))
  again, found = electra.to_hf(hyperparameters, params)
  assert all(value == config.get(key, value) for key, value in again.items())
  assert found.keys() == tensors.keys()
  for name, tensor in found.items():
    np.testing.assert_array_equal(tensor, tensors[name])
  with pytest.raises(UserError, match="task='rts' with head_norm=False only"):
    electra.to_hf({**hyperparameters, "head_norm": True}, params)
