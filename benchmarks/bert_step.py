"""Times a training step of BERT, beside PyTorch, and with logits of all tokens.

  pip install '.[test]' && python benchmarks/bert_step.py

BERT-base's shapes with 2 blocks of 12, a vocabulary of 30,522, 8 rows of 512 tokens,
15 % masked, float32, AdamW, no dropout. `torch` is `BertForMaskedLM` of transformers in
eager mode, which computes logits of all tokens, as `maskjax-everywhere` does; `maskjax`
computes those of masked ones. They take turns, each a process of its own, so that a
noisy machine disturbs them alike; ratios are of the median step.
"""

import functools
import statistics

from turns import compare

ROWS, LENGTH, VOCAB, DEPTH = 8, 512, 30522, 2
MASKED = 77  # of a row


def tokens():
  import numpy as np

  rng = np.random.default_rng(0)
  token = rng.integers(1000, VOCAB, size=(ROWS, LENGTH))
  masked = np.zeros((ROWS, LENGTH), bool)
  masked[:, 1 : MASKED + 1] = True
  return token, rng.permuted(masked, axis=1)


def torch_step():
  import torch
  from transformers import BertConfig, BertForMaskedLM

  config = BertConfig(
    num_hidden_layers=DEPTH, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
  )
  model = BertForMaskedLM(config).train()
  optimizer = torch.optim.AdamW(
    model.parameters(), lr=1e-4, betas=(0.9, 0.999), weight_decay=0.01
  )
  token, masked = (torch.from_numpy(array) for array in tokens())
  given = torch.where(masked, 103, token)
  labels = torch.where(masked, token, -100)

  def step():
    optimizer.zero_grad()
    loss = model(input_ids=given, labels=labels).loss
    loss.backward()
    optimizer.step()
    return float(loss.detach())

  return step


def maskjax_step(everywhere):
  import dataclasses

  import jax.numpy as jnp
  from steps import make_step

  import maskjax as mj
  from maskjax.objectives.text import MaskedTextObjective, token_loss

  class Everywhere(MaskedTextObjective):
    """The same objective, but logits are computed of all tokens."""

    def loss(self, variables, batch, step):
      mask = self.mask(batch, step)
      text = self.masking.replace(batch, mask, step.key)
      ids = jnp.broadcast_to(jnp.arange(LENGTH), mask.masked.shape)
      logits = self.apply(variables, text, ids)
      return token_loss(logits, batch["token"], mask.masked)

  objective = mj.systems.bert(
    vocab_size=VOCAB, mask_id=103, length=LENGTH, encoder=dict(size="B", depth=DEPTH)
  )
  if everywhere:
    fields = dataclasses.fields(objective)
    objective = Everywhere(**{f.name: getattr(objective, f.name) for f in fields})
  optimizer = mj.training.adamw(
    learning_rate=1e-4, num_steps=1000, b2=0.999, weight_decay=0.01
  )
  token, _ = tokens()
  position = jnp.broadcast_to(jnp.arange(LENGTH), token.shape)
  ones = jnp.ones_like(position)
  batch = dict(
    token=jnp.asarray(token),
    segment=ones,
    position=position,
    word=position,
    characters=ones,
    index=jnp.arange(ROWS),
  )
  return make_step(objective, optimizer, batch)


def main():
  candidates = {
    "torch": torch_step,
    "maskjax": functools.partial(maskjax_step, everywhere=False),
    "maskjax-everywhere": functools.partial(maskjax_step, everywhere=True),
  }
  seconds = compare(__file__, candidates, __doc__)
  median = {name: statistics.median(times) for name, times in seconds.items()}
  count = ROWS * LENGTH
  for name, value in median.items():
    best = min(seconds[name])
    print(f"{name:<19} {count / value:7.0f} tokens/s (best {count / best:7.0f})")
  print(f"maskjax / torch                   {median['torch'] / median['maskjax']:.2f}")
  ratio = median["maskjax-everywhere"] / median["maskjax"]
  print(f"logits of masked tokens / of all   {ratio:.2f}")


if __name__ == "__main__":
  main()
