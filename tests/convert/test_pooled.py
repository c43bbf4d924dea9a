"""Vectors of words by BERT, against transformers."""

import json

import numpy as np
import pytest
from helpers.text.rows import source

from maskjax.convert.pooled import pooled_words
from maskjax.errors import UserError

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")


def test_words_have_the_pooled_output_of_bert(tmp_path):
  vocabulary = source().vocabulary
  config = transformers.BertConfig(
    vocab_size=len(vocabulary),
    hidden_size=8,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=16,
    max_position_embeddings=32,
  )
  model = transformers.BertForPreTraining(config).eval()
  model.save_pretrained(tmp_path)
  vocabulary.save(tmp_path / "tokenizer.json")
  words = ["the", "expression", "class"]
  found = pooled_words(words, folder=str(tmp_path), batch_size=2)
  for vector, encoded in zip(found, vocabulary.encode(words), strict=True):
    ids = [vocabulary.first, *encoded.ids.tolist(), vocabulary.last]
    with torch.no_grad():
      expected = model.bert(torch.tensor([ids])).pooler_output[0]
    np.testing.assert_allclose(vector, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_a_bert_without_pooler(tmp_path):
  config = transformers.BertConfig(
    vocab_size=300, hidden_size=8, num_hidden_layers=1, num_attention_heads=2
  )
  transformers.BertForMaskedLM(config).save_pretrained(tmp_path)
  assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "bert"
  with pytest.raises(UserError, match="has no bert.pooler.dense.weight: expected a BE"):
    pooled_words(["a"], folder=str(tmp_path))
