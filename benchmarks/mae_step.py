"""Times a training step of MAE ViT-S/16, beside PyTorch and beside no masking.

  pip install '.[test]' && python benchmarks/mae_step.py

224 pixels, batch 32, float32, AdamW; a decoder of 4 layers of width 192. The three
candidates take turns in one process tree, each a process of its own, so that a noisy
machine disturbs them alike; ratios are of the median step.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

BATCH = 32
CANDIDATES = ("torch", "maskjax", "maskjax-unmasked")


def torch_step():
  import torch
  from transformers import ViTMAEConfig, ViTMAEForPreTraining

  config = ViTMAEConfig(
    hidden_size=384,
    num_hidden_layers=12,
    num_attention_heads=6,
    intermediate_size=1536,
    decoder_hidden_size=192,
    decoder_num_hidden_layers=4,
    decoder_num_attention_heads=3,
    decoder_intermediate_size=768,
    norm_pix_loss=True,
  )
  model = ViTMAEForPreTraining(config).train()
  optimizer = torch.optim.AdamW(
    model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05
  )
  images = torch.randn(BATCH, 3, 224, 224)

  def step():
    optimizer.zero_grad()
    loss = model(images).loss
    loss.backward()
    optimizer.step()
    return float(loss.detach())

  return step


def maskjax_step(unmasked):
  import dataclasses
  import functools

  import jax

  import maskjax as mj
  from maskjax.models import MaskedAutoencoder

  class SeesAll(MaskedAutoencoder):
    """The same network, but the encoder computes every patch."""

    def __call__(self, patches, mask, visible_too=False):
      tokens = self.encoder(patches)
      seen = jax.numpy.concatenate([tokens[:, :1], mask.visible(tokens[:, 1:])], axis=1)
      return self.decoder(seen, mask, visible_too)

  objective = mj.objectives.mae(encoder="S", decoder=dict(width=192, depth=4, heads=3))
  if unmasked:
    model = SeesAll(encoder=objective.model.encoder, decoder=objective.model.decoder)
    objective = dataclasses.replace(objective, model=model)
  optimizer = mj.training.adamw(learning_rate=1e-4, num_steps=1000)
  batch = {"image": jax.random.normal(jax.random.key(1), (BATCH, 224, 224, 3))}
  key = jax.random.key(0)
  state = jax.jit(functools.partial(mj.training.init_state, objective, optimizer))(
    batch, key
  )
  advance = jax.jit(
    functools.partial(
      mj.training.train_step, objective=objective, optimizer=optimizer, key=key
    ),
    donate_argnums=0,
  )

  def step():
    nonlocal state
    state, metrics = advance(state, batch)
    jax.block_until_ready(state)
    return float(metrics["loss"].value())

  return step


def work(name):
  """Takes one step for each line on standard input, and prints its seconds."""
  step = torch_step() if name == "torch" else maskjax_step(name != "maskjax")
  step()
  step()
  print("ready", flush=True)
  for _ in sys.stdin:
    start = time.perf_counter()
    loss = step()
    print(json.dumps([time.perf_counter() - start, loss]), flush=True)


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--turns", type=int, default=10)
  parser.add_argument("--worker", choices=CANDIDATES)
  options = parser.parse_args()
  if options.worker:
    work(options.worker)
    return
  workers = {}
  for name in CANDIDATES:
    workers[name] = subprocess.Popen(
      [sys.executable, __file__, "--worker", name],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )
    while workers[name].stdout.readline() != "ready\n":
      assert workers[name].poll() is None, f"{name} ended"
  seconds = {name: [] for name in workers}
  for _ in range(options.turns):
    for name, worker in workers.items():
      worker.stdin.write("\n")
      worker.stdin.flush()
      seconds[name].append(json.loads(worker.stdout.readline())[0])
  for worker in workers.values():
    worker.stdin.close()
  median = {name: statistics.median(times) for name, times in seconds.items()}
  for name, value in median.items():
    best = min(seconds[name])
    print(f"{name:<17} {BATCH / value:6.2f} images/s (best {BATCH / best:6.2f})")
  print(f"maskjax / torch             {median['torch'] / median['maskjax']:.2f}")
  ratio = median["maskjax-unmasked"] / median["maskjax"]
  print(f"75 % masked / nothing masked {ratio:.2f}")


if __name__ == "__main__":
  main()
