"""HPM: hard patches mining for masked image modeling.

Gives MAE a second decoder, which predicts how hard each patch is to reconstruct; it
learns by cross-entropy which of two masked patches has the larger error. The second
decoder of an average of the student sees the whole image and decides what is masked: at
first all at random, in the end the hardest patches for half of what is masked
(https://arxiv.org/abs/2304.05919). Config: `configs/image/hpm.py`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from maskjax import keys, schedules
from maskjax.errors import UserError
from maskjax.losses import Loss, Mean, squared_error
from maskjax.masking import Mask, highest, masking_of
from maskjax.models import Network, decoder_of, vit_encoder
from maskjax.models.decoder import TokenDecoder
from maskjax.models.encoder_model import EncoderModel
from maskjax.models.transformer import dense_like
from maskjax.objectives import teachers
from maskjax.objectives.objective import Batch, Step, Variables, valid
from maskjax.objectives.patches import PatchObjective
from maskjax.objectives.reconstruction import patch_loss, pictures
from maskjax.systems.system import System
from maskjax.targets import Pixels, Target
from maskjax.tokens import patches_of, sincos

SYSTEM = System(
  name="hpm",
  family="image",
  paper="arXiv:2304.05919",
  config="configs/image/hpm.py",
  agrees_with="equations in NumPy",
  differs=(
    "The share of the hardest patches, and the teacher's decay, change with each step; "
    "the authors' with each epoch.",
    "Probabilities of the order of two errors are not kept from 0; the authors add "
    "1e-6 inside the logarithm.",
  ),
)


class Branch(TokenDecoder, kw_only=True):
  """A decoder of tokens that another one has embedded.

  Attributes:
    patch_dim: length P of its output for each patch.
  """

  patch_dim: int

  @nn.compact
  def __call__(self, x: Array, mask: Mask, visible_too: bool) -> Array:
    """See `TokenDecoder.decoded`."""
    return self.decoded(x, mask, visible_too, self.patch_dim)


class MiningDecoder(TokenDecoder, kw_only=True):
  """MAE's decoder, and beside it one that predicts its errors.

  They share the embedding of the visible patches and the mask token, as the authors'
  do; the predicted error of a patch is the mean of as many outputs as a patch has
  values (section 3.2 of the paper).

  Attributes:
    patch_dim: length P of a prediction.
  """

  patch_dim: int

  @nn.compact
  def __call__(
    self, encoded: Array, mask: Mask, visible_too: bool = False
  ) -> tuple[Array, Array]:
    """Predicts masked patches and how hard they are, or all.

    Args:
      encoded: see `maskjax.models.Decoder`.
      mask: the mask under which it was encoded.
      visible_too: predict the visible patches as well.

    Returns:
      float32 [B, M, P] and [B, M], the larger the harder the patch is; or [B, N, P]
      and [B, N] when `visible_too`, in order of position.
    """
    table = jnp.asarray(sincos(self.grid, self.width), self.dtype)
    embed = dense_like(self, self.width, name="embed")
    x = self.joined(embed(encoded), mask, table)
    predictor = Branch(
      grid=self.grid,
      width=self.width,
      depth=self.depth,
      heads=self.heads,
      options=self.options,
      patch_dim=self.patch_dim,
      name="predictor",
    )
    hard = predictor(x, mask, visible_too).mean(axis=-1)
    return self.decoded(x, mask, visible_too, self.patch_dim), hard


class MiningAutoencoder(EncoderModel):
  """MAE's network with a second decoder, which predicts the errors of the first.

  (Section 3.2 of the paper.)

  Attributes:
    encoder: encodes the visible patches only.
    decoder: sees their features and mask tokens, and predicts the patches, and how
      hard each is.
  """

  decoder: MiningDecoder

  def __call__(self, patches: Array, mask: Mask) -> tuple[Array, Array]:
    """Predicts masked patches, and how hard they are: float32 [B, M, P] and [B, M]."""
    return self.decoder(self.encoder(patches, mask), mask)

  def difficulty(self, patches: Array) -> Array:
    """Predicts of a whole image how hard each patch would be: float32 [B, N]."""
    nothing = Mask.exactly(jnp.zeros(patches.shape[:2], bool), num_masked=0)
    return self.decoder(self.encoder(patches), nothing, True)[1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hpm(PatchObjective):
  """The objective of HPM; `hpm` makes it from hyperparameters.

  Attributes:
    teacher: an average of the student.
    hard_ratio: share of the masked patches that are the hardest, at the first and at
      the last step; it changes along a line.
    target: what is predicted of masked patches.
    error: of each token, from two [B, M, T] to [B, M].
  """

  teacher: teachers.Ema
  hard_ratio: tuple[float, float]
  target: Target
  error: Callable[[Array, Array], Array]

  def init(self, key: Array, batch: Batch) -> Variables:
    """Parameters of the student, and a teacher that is a copy."""
    params = self.init_params(key, batch)
    return Variables(params, {"teacher": self.teacher.init(params, key, batch)})

  def loss(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """Errors of the patches that the teacher masks, and of their predicted order."""
    mask = self.mined_mask(variables, batch, step)
    predictions, difficulty = self.apply(variables, self.patches(batch), mask)
    errors = self.error(predictions, mask.take_masked(self.targets(batch)))
    ranking = ranking_error(difficulty, jax.lax.stop_gradient(errors))
    counts = valid(batch)[:, None]
    return Loss.of(
      Mean.of(errors + ranking[:, None], counts),
      reconstruction=Mean.of(errors, counts),
      ranking=Mean.of(ranking, valid(batch)),
    )

  def evaluate(self, variables: Variables, batch: Batch, step: Step) -> Loss:
    """Errors of patches masked at random, so that all steps have the same task."""
    mask = self.mask(batch, step)
    predictions, _ = self.apply(variables, self.patches(batch), mask)
    return patch_loss(self.error, predictions, self.targets(batch), mask, batch)

  def update(
    self, variables: Variables, batch: Batch, step: Step, sums: Mapping[str, Any]
  ) -> Variables:
    """Moves the teacher toward the student."""
    params, extra = variables
    teacher = self.teacher.update(extra["teacher"], params, step)
    return Variables(params, {**extra, "teacher": teacher})

  def teacher_variables(self, variables: Variables) -> Variables:
    """The variables with the teacher's arrays instead of the student's."""
    return Variables(variables.extra["teacher"], variables.extra)

  def targets(self, batch: Batch) -> Array:
    """What is to be predicted at each patch: [B, N, T]."""
    return self.target(batch[self.patches.name])

  def reconstruct(
    self, variables: Variables, batch: Batch, step: Step
  ) -> dict[str, Array]:
    """Under random masks, see `maskjax.objectives.reconstruction.pictures`."""
    mask = self.mask(batch, step)
    predictions, _ = self.apply(variables, self.patches(batch), mask)
    return pictures(self, self.target, predictions, batch, mask)

  def mined_mask(self, variables: Variables, batch: Batch, step: Step) -> Mask:
    """The masks that the teacher makes of a batch's examples."""
    assert self.masking is not None
    num_masked = self.masking.num_masked
    scores = self.teacher.features(self.difficulty, variables.extra["teacher"], batch)
    share = schedules.linear(*self.hard_ratio, step.progress)
    masked = jax.vmap(hardest, in_axes=(0, 0, None, None))(
      keys.example_keys(keys.named(step.key, "mask"), batch),
      scores,
      num_masked,
      jnp.int32(share * num_masked),
    )
    return Mask.exactly(masked, num_masked=num_masked)

  def difficulty(self, variables: Variables, batch: Batch) -> Array:
    """How hard each patch of whole images would be to reconstruct: [B, N]."""
    return self.apply(variables, self.patches(batch), method="difficulty")


def hardest(key: Array, scores: Array, num_masked: int, num_hardest: Array) -> Array:
  """Masks the tokens that are hardest to predict, and others uniformly at random.

  (Section 3.3 of the paper, where `num_hardest` grows during training.)

  Args:
    key: the example's key.
    scores: [N], the predicted error of each token.
    num_masked: how many tokens to mask.
    num_hardest: how many of them have the highest scores, int scalar.

  Returns:
    bool [N], exactly `num_masked` True.

  Example:
    >>> scores = jnp.arange(6.0)
    >>> hardest(jax.random.key(0), scores, 4, 3).tolist()[3:]
    [True, True, True]
  """
  noise = jax.random.uniform(key, scores.shape)
  return highest(noise + highest(scores, num_hardest), num_masked)


def ranking_error(predictions: Array, targets: Array) -> Array:
  """The error of predicting which of two targets is larger: two [..., M] to [...].

  The mean, over all pairs of different targets, of the cross-entropy of which is larger
  with the logistic function of the predictions' difference (section 3.2 of the paper);
  0 where all are equal.

  Example:
    >>> targets = jnp.array([1.0, 2.0, 3.0])
    >>> print(f"{ranking_error(jnp.zeros(3), targets):.4f}")
    0.6931
  """
  chex.assert_equal_shape([predictions, targets])

  def differences(values: Array) -> Array:
    values = values.astype(jnp.float32)
    return values[..., :, None] - values[..., None, :]

  order = jnp.sign(differences(targets))
  errors = jax.nn.softplus(-order * differences(predictions))
  differ = order != 0
  count = jnp.maximum(differ.sum(axis=(-2, -1)), 1)
  return jnp.where(differ, errors, 0).sum(axis=(-2, -1)) / count


def hpm(
  *,
  image_size: int | Sequence[int] = 224,
  channels: int = 3,
  patch_size: int | Sequence[int] = 16,
  encoder: Mapping[str, Any] | str = "B",
  decoder: Mapping[str, Any] | None = None,
  mask_ratio: float = 0.75,
  hard_ratio: Sequence[float] = (0.0, 0.5),
  norm_pix_loss: bool = False,
  teacher: str | Mapping[str, Any] | None = None,
  **network: Unpack[Network],
) -> Hpm:
  """Makes HPM from hyperparameters.

  Args:
    image_size: side, or (height, width), in pixels.
    channels: values a pixel.
    patch_size: side, or (height, width), in pixels.
    encoder: a size of `maskjax.models.VIT_SIZES`, or `width`, `depth`, `heads`.
    decoder: `width`, `depth`, `heads` of both decoders; 512, 8 and 16 when None.
    mask_ratio: share of the patches that is masked.
    hard_ratio: share of these that are the hardest ones, at first and in the end; the
      others are drawn at random.
    norm_pix_loss: normalize each target patch by its own mean and std.
    teacher: an `ema` of `maskjax.objectives.teachers`; when None, its decay rises from
      0.999 to 0.9999 over the first half of the run.
    **network: see `maskjax.models.Network`.

  Raises:
    UserError: a size, a shape, a ratio or a teacher that does not fit; names it.

  Example:
    >>> hpm(image_size=8, channels=1, patch_size=2, encoder="Ti").masking.num_masked
    12
  """
  if len(hard_ratio) != 2 or not all(0 <= share <= 1 for share in hard_ratio):
    raise UserError(
      f"hard_ratio={hard_ratio}: expected two numbers from 0 to 1, the share at first "
      "and in the end"
    )
  first, last = hard_ratio
  rising = dict(name="ema", decay=0.999, last=0.9999, shape="linear", share=0.5)
  patches = patches_of(image_size, patch_size, channels=channels)
  network = {"initialization": "mae", **network}
  vit = vit_encoder(grid=patches.grid, encoder=encoder, **network)
  target = Pixels(patch_size=patches.size, channels=channels, normalized=norm_pix_loss)
  return Hpm(
    model=MiningAutoencoder(
      encoder=vit,
      decoder=decoder_of(vit, decoder, kind=MiningDecoder, patch_dim=target.size),
    ),
    patches=patches,
    masking=masking_of(patches.grid, "random", mask_ratio),
    teacher=teachers.build_ema(teacher or rising),
    hard_ratio=(first, last),
    target=target,
    error=squared_error,
  )
