"""AttMask: the teacher's attention masks, in the framework of iBOT."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.arrays import random, shaken

import maskjax as mj
from maskjax import masking
from maskjax.objectives import Step, Variables
from maskjax.systems import attmask
from maskjax.systems.image.attmask import masks
from maskjax.systems.image.attmask.network import PrototypeHead, at_grid
from maskjax.systems.image.attmask.objective import AttMask, both_views

torch = pytest.importorskip("torch")

KEY = jax.random.key(5)
BATCH = {
  "image": random(3, 8, 8, 1),
  "image2": random(3, 8, 8, 1, seed=1),
  "index": np.arange(3),
  "valid": np.ones(3, bool),
}
HEAD = dict(size=24, hidden=16, bottleneck=8)


def make(**more):
  return attmask(
    **{
      "image_size": 8,
      "channels": 1,
      "patch_size": 2,
      "encoder": dict(width=16, depth=2, heads=2),
      "head": HEAD,
      "temperature_steps": 10,
      "initialization": "xavier",
      "drop_path": 0.0,
      "teacher": dict(name="ema", decay=0.9),
      **more,
    }
  )


def without_mechanism(monkeypatch):
  """Patches are masked at random, whatever the teacher attends to."""
  masked = AttMask.masked

  def blind(self, attention, batch, step):
    noise = jax.random.uniform(step.key, attention.shape)
    return masked(self, noise, batch, step)

  monkeypatch.setattr(AttMask, "masked", blind)


@functools.cache
def variables():
  """A student, and a teacher and centers that are others."""
  params, extra = make().init(KEY, BATCH)
  center = {"cls": random(24, seed=2), "patch": random(24, seed=3)}
  teacher = shaken(params, seed=1)
  return Variables(shaken(params), {**extra, "teacher": teacher, "center": center})


@functools.cache
def compiled(**more):
  objective = make(**more)

  @jax.jit
  def run(variables, batch, step):
    params, extra = variables
    views = both_views(batch)
    scores, attention = objective.attend(Variables(extra["teacher"]), views)
    # Each view has a key of its own.
    example_keys = mj.keys.example_keys(mj.keys.named(KEY, "mask"), batch)
    both = jax.vmap(lambda key: jax.random.split(key, 2))(example_keys).reshape(-1)
    masked = jax.vmap(objective.sampler)(both, attention)
    mask = masking.Mask.uneven(masked)

    def loss(params):
      return objective.loss(Variables(params, extra), batch, step)

    return {
      "loss": loss(params),
      "gradient": jax.grad(lambda params: loss(params).sum)(params),
      "scores": scores,
      "attention": attention,
      "masked": masked,
      "student": objective.model.apply(
        {"params": params}, objective.patches(views), mask
      ),
    }

  return run


def run(step=4, batch=BATCH, **more):
  step = Step(KEY, jnp.int32(step), num_steps=10)
  return jax.device_get(compiled(**more)(variables(), batch, step))


def evenly(scores, where, steps):
  """Sinkhorn and Knopp's iteration over the rows that count, the others left at 0."""
  shares = torch.exp(scores - scores.max()) * where[:, None]
  for _ in range(steps):
    shares = shares / shares.sum(dim=0)
    shares = torch.nan_to_num(shares / shares.sum(dim=1, keepdim=True))
  return shares


def in_torch(out, step, valid=(True, True, True), sinkhorn_steps=0, local=None):
  """The loss of iBOT, equations 1 to 3, of two views of each image."""
  student, scores = (torch.tensor(out[k]).double() for k in ("student", "scores"))
  counts = torch.tensor(valid).repeat_interleave(2)
  masked = torch.tensor(out["masked"]) & counts[:, None]
  temperature = 0.04 + 0.03 * min(step / 10, 1)
  center = variables().extra["center"]

  def probabilities(scores, kind, where):
    if sinkhorn_steps:
      rows = scores.reshape(-1, 24) / temperature
      return evenly(rows, where.ravel(), sinkhorn_steps).reshape(scores.shape)
    centered = scores - torch.tensor(center[kind]).double()
    return torch.softmax(centered / temperature, dim=-1)

  whole = probabilities(scores[:, 0], "cls", counts)
  patches = probabilities(scores[:, 1:], "patch", masked)
  losses = {"class_token": [], "patches": []}
  for b in np.flatnonzero(valid):
    for crop in () if local is None else torch.tensor(local[b]).double():
      log_p = torch.log_softmax(crop / 0.1, dim=-1)
      losses["class_token"] += [-(whole[2 * b + view] * log_p).sum() for view in (0, 1)]
    for view, other in ((0, 1), (1, 0)):
      log_p = torch.log_softmax(student[2 * b + view] / 0.1, dim=-1)
      losses["class_token"].append(-(whole[2 * b + other] * log_p[0]).sum())
      here = masked[2 * b + view]
      each = -(patches[2 * b + view][here] * log_p[1:][here]).sum(dim=-1)
      losses["patches"].append(each.mean() if here.any() else torch.zeros(()))
  return {name: float(torch.stack(parts).mean()) for name, parts in losses.items()}


@pytest.mark.parametrize("step", [0, 4, 25])
def test_the_loss_is_torchs(step):
  out = run(step)
  assert out["masked"].any() and not out["masked"].any(axis=1).all()
  expected = in_torch(out, step)
  for name, value in expected.items():
    np.testing.assert_allclose(out["loss"].metrics[name].value(), value, rtol=1e-5)
  np.testing.assert_allclose(out["loss"].value(), sum(expected.values()), rtol=1e-5)
  assert out["loss"].weight == 3


def test_local_crops_are_compared_with_both_views():
  """Three crops of half the size, seen whole: eight comparisons of an image."""
  crops = random(3, 3, 4, 4, 1, seed=4)
  batch = {**BATCH, "valid": np.array([True, False, True])}
  objective, (params, _) = make(), variables()
  # The same by a network of its own size, with positions that torch made smaller.
  table = torch.tensor(params["encoder"]["positions"]).reshape(1, 4, 4, 16)
  smaller = torch.nn.functional.interpolate(
    table.permute(0, 3, 1, 2), scale_factor=2.1 / 4, mode="bicubic"
  )
  positions = smaller.permute(0, 2, 3, 1).reshape(4, 16).numpy()

  @jax.jit
  def losses(variables):
    model, resized = at_grid(objective.model, variables.params, (2, 2))
    patches = mj.tokens.patchify(crops.reshape(9, 4, 4, 1), 2)
    logits = model.apply({"params": resized}, patches)[:, 0].reshape(3, 3, 24)
    step = Step(KEY, jnp.int32(4), num_steps=10)
    loss = objective.loss(variables, {**batch, "local": crops}, step)
    return resized["encoder"]["positions"], logits, loss

  resized, logits, loss = jax.device_get(losses(variables()))
  np.testing.assert_allclose(resized, positions, atol=1e-5)
  expected = in_torch(run(batch=batch), 4, batch["valid"], local=logits)
  for name, value in expected.items():
    np.testing.assert_allclose(loss.metrics[name].value(), value, rtol=1e-5)


@pytest.mark.parametrize("valid", [(True, True, True), (True, False, True)])
def test_scores_can_be_shared_out_evenly_instead(valid):
  out = run(batch={**BATCH, "valid": np.array(valid)}, sinkhorn_steps=3)
  expected = in_torch(out, 4, valid, sinkhorn_steps=3)
  for name, value in expected.items():
    np.testing.assert_allclose(out["loss"].metrics[name].value(), value, rtol=1e-5)


def test_rows_that_are_not_valid_do_not_count():
  valid = np.array([True, False, True])
  out = run(batch={**BATCH, "valid": valid})
  expected = in_torch(out, 4, valid)
  np.testing.assert_allclose(out["loss"].value(), sum(expected.values()), rtol=1e-5)
  scores = out["scores"].reshape(3, 2, 17, 24)[valid]
  sums = out["loss"].sums
  assert sums["count"] == 2
  np.testing.assert_allclose(
    sums["cls"], scores[:, :, 0].mean(axis=1).sum(axis=0), rtol=1e-4, atol=1e-5
  )
  np.testing.assert_allclose(
    sums["patch"], scores[:, :, 1:].mean(axis=(1, 2)).sum(axis=0), rtol=1e-4, atol=1e-5
  )


def test_the_attention_is_that_of_the_last_class_token():
  """By hand from the teacher's parameters and the last block's input."""
  out = run()
  objective, (_, extra) = make(), variables()
  encoder, params = objective.model.encoder, extra["teacher"]["encoder"]
  views = {"image": np.stack([BATCH["image"], BATCH["image2"]], 1).reshape(6, 8, 8, 1)}
  before = encoder.apply(
    {"params": params}, objective.patches(views), method="every_block"
  )[0]
  x = np.asarray(before, np.float64)
  block = params["transformer"]["block_1"]
  x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
  x = x * block["attention_norm"]["scale"] + block["attention_norm"]["bias"]
  query, key = (
    (x @ block["attention"][n]["kernel"] + block["attention"][n]["bias"]).reshape(
      6, 17, 2, 8
    )
    for n in ("query", "key")
  )
  scores = np.einsum("bhd,bkhd->bhk", query[:, 0], key) / np.sqrt(8)
  weights = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
  np.testing.assert_allclose(
    out["attention"], weights[:, :, 1:].mean(axis=1), rtol=1e-5
  )


def test_what_is_attended_to_most_is_masked():
  sure = dict(name="attended", prob=1.0)
  masked, attention = (run(mask=frozen(sure))[k] for k in ("masked", "attention"))
  assert masked.any(axis=1).all()
  for row, scores in zip(masked, attention, strict=True):
    assert scores[row].min() > scores[~row].max()
  other = run(mask=frozen({**sure, "mode": "low"}))["masked"]
  assert not (masked & other).any()


def frozen(spec):
  """A spec that is distinguished from others by `functools.cache`."""
  from flax.core import FrozenDict

  return FrozenDict(spec)


@functools.cache
def attended(count=4096, **options):
  scores = jnp.asarray(np.random.default_rng(0).permutation(50) / 50)
  draw = jax.jit(jax.vmap(lambda key: masks.attended(key, scores, **options)))
  return np.asarray(scores), np.asarray(draw(jax.random.split(KEY, count)))


def test_shares_are_uniform_and_every_other_image_stays_whole():
  _, masked = attended()
  share = masked.sum(axis=1) / 50
  # Five stds of the mean of 4096 draws.
  assert abs((share > 0).mean() - 0.5) < 5 * 0.5 / 64
  share = share[share > 0]
  assert share.min() == 0.1 and share.max() == 0.48
  assert abs(np.median(share) - 0.29) < 0.03


def test_a_share_that_is_a_whole_number_of_tokens():
  _, masked = attended(count=8, low=0.3, high=0.3, prob=1.0)
  assert (masked.sum(axis=1) == 15).all()


def test_hints_are_among_the_most_attended():
  scores, masked = attended(mode="hint", low=0.4, high=0.4, prob=1.0)
  order = np.argsort(-scores)
  # Of the 20 with the highest scores, 2 of the first 5 are shown.
  masked = masked[:, order]
  assert (masked.sum(axis=1) == 18).all()
  assert masked[:, 5:20].all() and not masked[:, 20:].any()
  shown = 1 - masked[:, :5].mean(axis=0)
  np.testing.assert_allclose(shown, 0.4, atol=5 * 0.5 / 64)


def test_low_is_high_upside_down():
  scores, masked = attended(mode="low", low=0.2, high=0.2, prob=1.0)
  assert (masked == (scores < 0.2)).all()


def test_prototypes_stay_where_they_are_at_first():
  later, frozen = run(4), run(4, freeze_steps=5)
  kernel = later["gradient"]["head"]["prototypes"]["kernel"]
  assert abs(kernel).max() > 1e-4
  assert not frozen["gradient"]["head"]["prototypes"]["kernel"].any()
  np.testing.assert_allclose(
    frozen["gradient"]["head"]["up"]["kernel"],
    later["gradient"]["head"]["up"]["kernel"],
    atol=1e-5 * abs(later["gradient"]["head"]["up"]["kernel"]).max(),
  )


def test_the_teacher_and_its_centers_follow():
  params, extra = variables()
  sums = {"cls": random(24, seed=7), "patch": random(24, seed=8), "count": 4.0}
  after = make().update(variables(), BATCH, Step(KEY), sums).extra
  for kind in ("cls", "patch"):
    expected = 0.9 * extra["center"][kind] + 0.1 * sums[kind] / 4
    np.testing.assert_allclose(after["center"][kind], expected, rtol=1e-5, atol=1e-7)
  old, new, moved = (
    tree["head"]["prototypes"]["kernel"]
    for tree in (extra["teacher"], params, after["teacher"])
  )
  np.testing.assert_allclose(
    moved,
    0.9 * old + 0.1 * new,
    rtol=1e-5,
    atol=1e-7,
  )


def test_the_teacher_is_a_network_of_the_students_kind():
  params, extra = make().teacher_variables(variables())
  assert params is extra["teacher"] is variables().extra["teacher"]


@pytest.mark.parametrize("fixed_length", [False, True])
def test_the_head_is_torchs(fixed_length):
  x = random(2, 5, 16)
  head = PrototypeHead(**HEAD, fixed_length=fixed_length)
  params = shaken(head.init(KEY, x)["params"])
  last_layer = params["prototypes"]
  assert ("scale" in last_layer) != fixed_length
  y = torch.from_numpy(x)
  for name in ("up", "middle", "down"):
    weight, bias = (torch.from_numpy(params[name][k]) for k in ("kernel", "bias"))
    y = torch.nn.functional.linear(y, weight.T, bias)
    y = torch.nn.functional.gelu(y) if name != "down" else y
  last = torch.nn.Linear(8, 24, bias=False)
  last.weight.data = torch.from_numpy(last_layer["kernel"].T.copy())
  last = torch.nn.utils.parametrizations.weight_norm(last)
  lengths = last_layer.get("scale", np.ones(24, np.float32))
  last.parametrizations.weight.original0.data = torch.from_numpy(lengths)[:, None]
  expected = last(torch.nn.functional.normalize(y, dim=-1)).detach().numpy()
  np.testing.assert_allclose(head.apply({"params": params}, x), expected, atol=2e-6)


@functools.cache
def trained():
  """A tiny AttMask on digits: its metrics, every 20 steps, and its features."""
  objective = make(
    head=dict(size=64, hidden=32, bottleneck=256, fixed_length=True),
    teacher=dict(name="ema", decay=0.98),
    teacher_temperature=(0.03, 0.03),
    scan=True,
    remat="full",
    drop_path=0.1,
  )
  view = (dict(name="random_crop", size=8, padding=1), "to_float")
  views = dict(name="two_views", first=view, second=view)
  data = mj.data.Pipeline(
    source=mj.data.digits(),
    batch_size=32,
    transforms=[mj.data.bind_transform(views)],
  )
  values = []

  class Writer(mj.metrics.Writers):
    def write(self, step, numbers):
      values.append(numbers)

  state = mj.fit(
    objective,
    data,
    optimizer=mj.training.adamw(learning_rate=1e-3, num_steps=200, clip_norm=1.0),
    num_steps=100,
    microbatches=2,
    mesh=mj.sharding.make_mesh(devices=jax.devices()[:1]),
    writer=Writer(),
    log_every=20,
  )
  with data(0) as batches:
    batch = next(batches)
  return values, np.asarray(objective.features(state.variables, batch))


def test_it_learns_without_collapse():
  """Centers begin at 0, so that the loss first rises to that of equal logits."""
  values, features = trained()
  patches = [float(numbers["train/patches"]) for numbers in values]
  assert patches[-1] < 0.85 * max(patches)
  means = features.mean(axis=1)
  variance = np.linalg.svd(means - means.mean(axis=0), compute_uv=False) ** 2
  share = variance / variance.sum()
  assert np.exp(-(share * np.log(share)).sum()) > 2  # its effective rank


@pytest.mark.parametrize(
  ("more", "message"),
  [
    (dict(mask=dict(name="attended", mode="hihg")), "mode='hihg': did you mean 'high'"),
    (dict(mask=dict(name="attended", low=0.6)), "low=0.6, high=0.5: expected 0 <= low"),
    (dict(mask=dict(name="attended", prob=2.0)), "prob=2.0: expected a number from 0"),
    (dict(mask="random"), "no 'random' in maskjax.systems.image.attmask.masks"),
    (dict(teacher_temperature=(0.04, 0.0)), "expected a positive number, and two"),
    (dict(student_temperature=-1.0), "expected a positive number, and two"),
    (dict(sinkhorn_steps=-1), "sinkhorn_steps=-1: expected at least 0"),
    (dict(head=dict(size=0)), "head.size=0: expected at least 1"),
    (dict(head=dict(sise=8)), "head.sise: did you mean 'size'"),
    (
      dict(teacher=dict(name="frozen", objective=dict(name="mae", encoder="Ti"))),
      "teacher.name='frozen': expected 'ema'",
    ),
  ],
)
def test_mistakes(more, message):
  with pytest.raises(mj.UserError, match=message):
    make(**more).init(KEY, BATCH)
