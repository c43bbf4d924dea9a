"""Supervised finetuning of an encoder, with the recipe of MAE's table 9.

Cross-entropy with label smoothing on images mixed by mixup and cutmix, blocks
dropped at random (https://arxiv.org/abs/2111.06377, appendix A). Layer-wise
learning-rate decay is the optimizer's. Config: `configs/image/finetune.py`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import jax.numpy as jnp
from jax import Array, ShapeDtypeStruct

from maskjax import keys
from maskjax.data.mixing import mixup_cutmix, smooth_labels
from maskjax.losses import Loss, Mean, cross_entropy
from maskjax.models import Classifier, Network, vit_encoder
from maskjax.objectives.objective import Batch, Step, Variables, first_example, valid
from maskjax.tokens import Patches, patches_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classification:
  """The supervised objective; `classification` makes it from hyperparameters.

  Batches hold `image`, float32 [B, H, W, C], and `label`, int [B].

  Attributes:
    model: gives logits.
    patches: cuts images into patches.
    label_smoothing: probability spread evenly over all classes.
    mixup_alpha: parameter of mixup's Beta distribution; 0 never mixes.
    cutmix_alpha: parameter of cutmix's Beta distribution; 0 never cuts.
  """

  model: Classifier
  patches: Patches
  label_smoothing: float
  mixup_alpha: float
  cutmix_alpha: float

  def init(self, key: Array, batch: Batch) -> Variables:
    """Parameters for images of the batch's shape."""
    patches = self.patches(first_example(batch))
    return Variables(self.model.init(key, patches)["params"])

  def batch_shapes(self, batch_size: int) -> dict[str, ShapeDtypeStruct]:
    """The shapes of a batch of this many labeled images."""
    return {
      **self.patches.batch_shapes(batch_size),
      "label": ShapeDtypeStruct((batch_size,), jnp.int32),
    }

  def loss(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """Cross-entropy on mixed images, with dropped paths."""
    # The first example's key, so that microbatches draw different numbers.
    draw = keys.example_keys(keys.named(step.key, "mixing"), batch)[0]
    images, labels = mixup_cutmix(
      keys.named(draw, "images"),
      batch["image"],
      smooth_labels(batch["label"], self.model.num_classes, self.label_smoothing),
      mixup_alpha=self.mixup_alpha,
      cutmix_alpha=self.cutmix_alpha,
    )
    logits: Any = self.model.apply(
      {"params": variables.params},
      self.patches({"image": images}),
      rngs={"drop_path": keys.named(draw, "drop_path")},
    )
    return Loss.of(Mean.of(cross_entropy(logits, labels)))

  def evaluate(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """Cross-entropy and accuracy on images as they are."""
    params = {"params": variables.params}
    logits: Any = self.model.apply(params, self.patches(batch))
    labels = smooth_labels(batch["label"], self.model.num_classes, 0.0)
    right = logits.argmax(axis=-1) == batch["label"]
    return Loss.of(
      Mean.of(cross_entropy(logits, labels), valid(batch)),
      accuracy=Mean.of(right, valid(batch)),
    )

  def features(self, variables: Variables, batch: Batch) -> Array:
    """The encoder's features of all patches: [B, N, D]."""
    params = {"params": variables.params["encoder"]}
    tokens: Any = self.model.encoder.apply(params, self.patches(batch))
    return self.model.encoder.patch_tokens(tokens)


def classification(
  *,
  num_classes: int,
  image_size: int | Sequence[int] = 224,
  channels: int = 3,
  patch_size: int | Sequence[int] = 16,
  encoder: Mapping[str, Any] | str = "B",
  drop_path: float = 0.1,
  label_smoothing: float = 0.1,
  mixup_alpha: float = 0.8,
  cutmix_alpha: float = 1.0,
  **network: Unpack[Network],
) -> Classification:
  """Makes a classifier from hyperparameters; the defaults finetune a ViT-B.

  Args:
    num_classes: number of classes.
    image_size: side, or (height, width), in pixels.
    channels: values a pixel.
    patch_size: side, or (height, width), in pixels.
    encoder: a size of `maskjax.models.VIT_SIZES`, or `width`, `depth`, `heads`.
    drop_path: drop rate of the last block; earlier blocks' rise from 0 to it.
    label_smoothing: probability spread evenly over all classes.
    mixup_alpha: parameter of mixup's Beta distribution; 0 never mixes.
    cutmix_alpha: parameter of cutmix's Beta distribution; 0 never cuts.
    **network: see `maskjax.models.Network`.

  Raises:
    UserError: a size or shape that cannot be; names it.
  """
  patches = patches_of(image_size, patch_size, channels=channels)
  vit = vit_encoder(
    grid=patches.grid,
    encoder=encoder,
    final_norm=False,
    drop_path=drop_path,
    **network,
  )
  return Classification(
    model=Classifier(encoder=vit, num_classes=num_classes),
    patches=patches,
    label_smoothing=label_smoothing,
    mixup_alpha=mixup_alpha,
    cutmix_alpha=cutmix_alpha,
  )
