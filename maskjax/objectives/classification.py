"""Supervised finetuning of a system's encoder, whatever its kind.

The encoder is that of a system, named as the system's own config names it: of a run's,
where `config.init_from` names a run. A linear layer stands on its pooled features.
Images are mixed by mixup and cutmix, labels smoothed, blocks dropped at random, as the
papers finetune (https://arxiv.org/abs/2111.06377, appendix A); layer-wise learning-rate
decay is the optimizer's. Config: `configs/image/finetune.py`.
"""

import dataclasses
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, ShapeDtypeStruct

from maskjax import keys, resolve
from maskjax.data.mixing import mixup_cutmix, smooth_labels
from maskjax.errors import UserError, at_least_one, did_you_mean
from maskjax.losses import Loss, Mean, cross_entropy
from maskjax.models import classifier
from maskjax.models.classifier import Classifier
from maskjax.models.relative_bias import resized
from maskjax.objectives import batch_statistics
from maskjax.objectives.abilities import Adoption, abilities_of, needed
from maskjax.objectives.objective import Batch, Step, Variables, first_example, valid
from maskjax.objectives.patches import collections
from maskjax.tokens import Patches, patches_of

# Tables of relative positions, whatever holds them.
_TABLE = re.compile(r".*(relative|biases)/(block(s|_\d+)/)?table$")


def softmax_error(logits: Array, labels: Array) -> Array:
  """Cross-entropy of one class of all: float32 [B, K] each to [B]."""
  return cross_entropy(logits, labels)


def sigmoid_error(logits: Array, labels: Array) -> Array:
  """Mean cross-entropy of each class by itself: float32 [B, K] each to [B].

  Example:
    >>> zeros = jnp.zeros((1, 2))
    >>> print(sigmoid_error(zeros, zeros)[0].round(4))
    0.6931
  """
  return optax.sigmoid_binary_cross_entropy(logits, labels).mean(axis=-1)


ERRORS = {"sigmoid": sigmoid_error, "softmax": softmax_error}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classification:
  """The supervised objective; `classification` makes it from hyperparameters.

  Batches hold `image`, float32 [B, H, W, C], and `label`, int [B].

  Attributes:
    model: gives logits.
    patches: cuts images into patches.
    norm: which the last normalization is, see `classification`.
    error: a name in `ERRORS`.
    label_smoothing: probability spread evenly over all classes.
    mixup_alpha: parameter of mixup's Beta distribution; 0 never mixes.
    cutmix_alpha: parameter of cutmix's Beta distribution; 0 never cuts.
  """

  model: Classifier
  patches: Patches
  norm: str
  error: str
  label_smoothing: float
  mixup_alpha: float
  cutmix_alpha: float

  @property
  def encoder(self) -> Any:
    """The network that is finetuned, and may be finetuned again."""
    return self.model.encoder

  def init(self, key: Array, batch: Batch) -> Variables:
    """Parameters, and running averages where the encoder has such."""
    patches = self.patches(first_example(batch))
    return batch_statistics.init(self.model, key, patches)

  def adopt(self, pretrained: Mapping[str, Any], like: Mapping[str, Any]) -> Adoption:
    """Takes the encoder; see `maskjax.objectives.abilities.Adopts`.

    Its last normalization goes where the classifier has it, or is left. Relative
    positions that all blocks shared become each block's own, and are interpolated for
    windows and grids of another size.
    """
    taken: dict[str, tuple[str, Any]] = {}
    for name, array in pretrained.items():
      ours = [name] if name.startswith("encoder/") else []
      if self.norm == "moved" and name.startswith("encoder/norm/"):
        ours = [name.removeprefix("encoder/")]
      if name == "encoder/relative/table" and name not in like:
        ours = [own for own in like if own.startswith("encoder/biases/")]
      for own in ours:
        taken[own] = (name, _fitted(own, array, like))
    replaced = self.norm in ("new", "none")
    left = [n for n in pretrained if replaced and n.startswith("encoder/norm/")]
    # Positions that are learned from here on, or were not there before.
    own_positions = ("encoder/positions", "encoder/biases/")
    new = [name for name in like if name.startswith(own_positions)]
    return Adoption(taken, left=left, new=new)

  def batch_shapes(self, batch_size: int) -> dict[str, ShapeDtypeStruct]:
    """The shapes of a batch of this many labeled images."""
    return {
      **self.patches.batch_shapes(batch_size),
      "label": ShapeDtypeStruct((batch_size,), jnp.int32),
    }

  def loss(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """The error on mixed images, with dropped paths."""
    # The first example's key, so that microbatches draw different numbers.
    draw = keys.example_keys(keys.named(step.key, "mixing"), batch)[0]
    images, labels = mixup_cutmix(
      keys.named(draw, "images"),
      batch["image"],
      smooth_labels(batch["label"], self.model.num_classes, self.label_smoothing),
      mixup_alpha=self.mixup_alpha,
      cutmix_alpha=self.cutmix_alpha,
    )
    logits, sums = batch_statistics.apply(
      self.model,
      variables.params,
      self.patches({"image": images}),
      rngs={"drop_path": keys.named(draw, "drop_path")},
    )
    loss = Loss.of(Mean.of(ERRORS[self.error](logits, labels)))
    return dataclasses.replace(loss, sums=sums)

  def update(
    self, variables: Variables, batch: Batch, step: Step, sums: Mapping[str, Any]
  ) -> Variables:
    """Moves the running averages, where the encoder has such."""
    del batch, step
    return batch_statistics.update(variables, sums)

  def evaluate(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """The error and the accuracy on images as they are."""
    del step
    logits: Any = self.model.apply(collections(variables), self.patches(batch))
    labels = smooth_labels(batch["label"], self.model.num_classes, 0.0)
    right = logits.argmax(axis=-1) == batch["label"]
    return Loss.of(
      Mean.of(ERRORS[self.error](logits, labels), valid(batch)),
      accuracy=Mean.of(right, valid(batch)),
    )

  def features(self, variables: Variables, batch: Batch) -> Array:
    """The encoder's features of all patches or positions: [B, N, D]."""
    tokens: Any = self.model.apply(
      collections(variables), self.patches(batch), method="encode"
    )
    return self.encoder.patch_tokens(tokens)


def _fitted(name: str, array: Any, like: Mapping[str, Any]) -> Any:
  """An array as it fits a parameter: tables of relative positions are interpolated."""
  if name not in like or not _TABLE.match(name):
    return array
  *stack, rows, _ = like[name].shape
  if array.shape[-2] != rows:
    array = (
      np.stack([resized(table, rows) for table in array])
      if array.ndim == 3
      else resized(array, rows)
    )
  # One table for all blocks, whose own are stacked.
  return np.stack([array] * stack[0]) if stack and array.ndim == 2 else array


def classification(
  *,
  num_classes: int,
  system: str | Mapping[str, Any],
  image_size: int | Sequence[int] | None = None,
  pool: str = "mean",
  norm: str | None = None,
  positions: str | None = None,
  block_bias: bool = False,
  window: int | None = None,
  head_std: float | None = 2e-5,
  drop_path: float = 0.1,
  error: str = "softmax",
  label_smoothing: float = 0.1,
  mixup_alpha: float = 0.8,
  cutmix_alpha: float = 1.0,
  dtype: str | None = None,
  scan: bool | None = None,
  remat: str | None = None,
) -> Classification:
  """Makes a classifier around a system's encoder.

  Args:
    num_classes: number of classes.
    system: the objective whose encoder is finetuned, as its own config has it: `name`
      and keywords. A run with `config.init_from` takes that of the run named there.
    image_size: side, or (height, width), in pixels; the system's when None.
    pool: what is classified: the `mean` of the features of patches or positions, or
      the `class_token`.
    norm: the last normalization: a `new` one, of the pooled features, in place of the
      encoder's own; the encoder's `own`, of its tokens; the same `moved`, to the pooled
      features; or `none`. When None as the papers have it: `new` for ViTs and
      ConvNeXts, `own` for Swins, `none` for ResNets.
    positions: of a ViT, see `maskjax.models.VisionEncoder`; the system's when None.
      `learned_sincos` goes on from `sincos`.
    block_bias: of a ViT: give each block a bias of relative positions of its own, which
      begins as the one that all blocks shared, or as none.
    window: of a Swin; the system's when None.
    head_std: of the last layer's weights at first; None for torch's own.
    drop_path: drop rate of the last block; earlier blocks' rise from 0 to it.
    error: `softmax`, of one class of all; or `sigmoid`, of each class by itself.
    label_smoothing: probability spread evenly over all classes.
    mixup_alpha: parameter of mixup's Beta distribution; 0 never mixes.
    cutmix_alpha: parameter of cutmix's Beta distribution; 0 never cuts.
    dtype: `float32` or `bfloat16`, type of the computation; the system's when None.
    scan: see `maskjax.models.BlockOptions`; the system's when None.
    remat: likewise.

  Raises:
    UserError: no such system, one without an encoder of images, or an option that does
      not fit its kind; names it.

  Example:
    >>> found = classification(num_classes=10, system=dict(name="mae", encoder="Ti"))
    >>> found.encoder.width, found.patches.grid
    (192, (14, 14))
  """
  objective = resolve.build(sys.modules["maskjax.objectives"], system)
  encoder = abilities_of(objective).encoder
  needed(encoder, objective, "encoder and patches", "finetuning it")
  patches = objective.patches
  if image_size is not None:
    patches = patches_of(image_size, patches.size, channels=patches.channels)
  at_least_one(num_classes=num_classes)
  if error not in ERRORS:
    raise UserError(f"error={error!r}: {did_you_mean(error, ERRORS)}")
  norm = classifier.default_norm(encoder) if norm is None else norm
  compute = {"dtype": dtype, "scan": scan, "remat": remat}
  network = classifier.without_masks(
    encoder,
    grid=patches.grid,
    norm=norm,
    drop_path=drop_path,
    positions=positions,
    block_bias=block_bias,
    window=window,
    **{key: value for key, value in compute.items() if value is not None},
  )
  classifier.check_pool(pool, network)
  return Classification(
    model=Classifier(
      encoder=network,
      num_classes=num_classes,
      pool=pool,
      norm=norm in ("new", "moved"),
      head_std=head_std,
    ),
    patches=patches,
    norm=norm,
    error=error,
    label_smoothing=label_smoothing,
    mixup_alpha=mixup_alpha,
    cutmix_alpha=cutmix_alpha,
  )
