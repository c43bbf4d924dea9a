"""Times a training step of MAE ViT-S/16, beside PyTorch and beside no masking.

  pip install '.[test]' && python benchmarks/mae_step.py

224 pixels, batch 32, float32, AdamW; a decoder of 4 layers of width 192. The three
candidates take turns in one process tree, each a process of its own, so that a noisy
machine disturbs them alike; ratios are of the median step.
"""

import functools
import statistics

from turns import compare

BATCH = 32


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

  import jax
  from steps import make_step

  import maskjax as mj
  from maskjax.models import MaskedAutoencoder

  class SeesAll(MaskedAutoencoder):
    """The same network, but the encoder computes every patch."""

    def __call__(self, patches, mask, visible_too=False):
      tokens = self.encoder(patches)
      seen = jax.numpy.concatenate(
        [tokens[:, :1], mask.take_visible(tokens[:, 1:])], axis=1
      )
      return self.decoder(seen, mask, visible_too)

  objective = mj.systems.mae(encoder="S", decoder=dict(width=192, depth=4, heads=3))
  if unmasked:
    model = SeesAll(encoder=objective.model.encoder, decoder=objective.model.decoder)
    objective = dataclasses.replace(objective, model=model)
  optimizer = mj.training.adamw(learning_rate=1e-4, num_steps=1000)
  batch = {"image": jax.random.normal(jax.random.key(1), (BATCH, 224, 224, 3))}
  return make_step(objective, optimizer, batch)


def main():
  candidates = {
    "torch": torch_step,
    "maskjax": functools.partial(maskjax_step, unmasked=False),
    "maskjax-unmasked": functools.partial(maskjax_step, unmasked=True),
  }
  seconds = compare(__file__, candidates, __doc__)
  median = {name: statistics.median(times) for name, times in seconds.items()}
  for name, value in median.items():
    best = min(seconds[name])
    print(f"{name:<17} {BATCH / value:6.2f} images/s (best {BATCH / best:6.2f})")
  print(f"maskjax / torch             {median['torch'] / median['maskjax']:.2f}")
  ratio = median["maskjax-unmasked"] / median["maskjax"]
  print(f"75 % masked / nothing masked {ratio:.2f}")


if __name__ == "__main__":
  main()
