"""From a config to the parts that it names."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from maskjax import config as configs
from maskjax import (
  data,
  keys,
  metrics,
  networks,
  objectives,
  resolve,
  sharding,
)
from maskjax import workdir as workdirs
from maskjax.errors import UserError
from maskjax.evaluation.probes import PROBES
from maskjax.objectives import Step, Variables, abilities_of
from maskjax.objectives.abilities import RANDOM, Abilities
from maskjax.tokens import vocabularies
from maskjax.training import optimizers, transfer
from maskjax.training.step import rows_that_count


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
  """The parts that a config names, checked against each other.

  Attributes:
    config: the config.
    objective: the system.
    abilities: what it offers.
    optimizer: changes its parameters.
    mesh: the devices.
    train: shuffled, transformed training batches without end.
    train_once: the training data once, in order, transformed like the test data.
    test: the held-out data once, in order; None where the config has none.
  """

  config: ConfigDict
  objective: Any
  abilities: Abilities
  optimizer: optax.GradientTransformation
  mesh: Mesh
  train: data.Pipeline
  train_once: data.Pipeline
  test: data.Pipeline | None

  @functools.cached_property
  def example(self) -> dict[str, np.ndarray]:
    """A batch, for its shapes."""
    with self.train(0) as batches:
      return next(batches)

  @property
  def key(self) -> jax.Array:
    """The run's key."""
    return jax.random.key(self.config.seed)

  @property
  def vocabulary(self) -> Any:
    """Of data that is text; None of other data."""
    return getattr(self.train.source, "vocabulary", None)

  def step(self, number: int) -> Step:
    """A step of the run, whose key is the run's."""
    return Step(self.key, number, self.config.num_steps)

  def untrained(self) -> Variables:
    """The variables that the run begins with."""
    key = keys.named(self.key, "init")
    return jax.jit(self.objective.init)(key, self.example)


def build_system(
  config: ConfigDict,
  devices: Sequence[jax.Device] | None = None,
  *,
  learns: bool = True,
) -> tuple[Any, optax.GradientTransformation, Mesh]:
  """Builds what of a config needs no data: objective, optimizer and mesh.

  Args:
    config: the config.
    devices: of the mesh; this machine's when None.
    learns: refuse an objective without a loss, which can only teach.

  Raises:
    UserError: names the key that is wrong and what was expected.
  """
  values = configs.flat(config)
  for key in (
    "num_steps",
    "batch_size",
    "log_every",
    "checkpoint.keep",
    "eval.batch_size",
  ):
    if values[key] < 1:
      raise UserError(f"config.{key}={values[key]}: expected at least 1")
  for probe in config.eval.probes:
    if probe not in PROBES:
      hint = resolve.did_you_mean(str(probe), PROBES)
      raise UserError(f"config.eval.probes: no probe {probe!r}: {hint}")
  if config.wandb_project and not metrics.has_wandb():
    raise UserError(
      f"config.wandb_project={config.wandb_project!r}: expected the package wandb"
    )
  config, _ = with_vocabulary(with_system(config) if learns else config)
  objective = resolve.build(objectives, config.objective)
  found = abilities_of(objective)
  networks.check(config, objective)
  if learns and found.loss is None:
    raise UserError(
      f"config.objective.name={config.objective.name!r} has no loss: expected one that "
      "learns"
    )
  optimizer = resolve.build(optimizers, config.optimizer, num_steps=config.num_steps)
  mesh = sharding.make_mesh(**config.mesh, devices=devices)
  sharding.check_batch(mesh, config.batch_size, config.microbatches)
  if any(config.batch_warmup):
    rows_that_count(tuple(config.batch_warmup), config.batch_size, 0)
  try:
    sharding.check_batch(mesh, config.eval.batch_size, 1)
  except UserError as error:
    raise UserError(f"eval.{error}") from None
  return objective, optimizer, mesh


def prepare(config: ConfigDict, *, learns: bool = True) -> Experiment:
  """Builds what a config names; touches no file but the data's.

  Args:
    config: the config.
    learns: see `build_system`.

  Raises:
    UserError: names the key that is wrong and what was expected.
  """
  config = with_system(config) if learns else config
  config, source = with_vocabulary(config, whole=True)
  objective, optimizer, mesh = build_system(config, learns=learns)

  def pipeline(source: Any, transforms: Sequence[Any], **keywords: Any) -> Any:
    return data.Pipeline(
      source=source,
      transforms=[data.bind_transform(t) for t in transforms],
      seed=config.seed,
      on_bad_record=config.data.on_bad_record,
      num_threads=config.data.num_threads,
      prefetch=config.data.prefetch,
      **keywords,
    )

  once = functools.partial(
    pipeline,
    transforms=config.data.test_transforms,
    batch_size=config.eval.batch_size,
    shuffle=False,
    repeat=False,
  )
  if source is None:
    source = resolve.build(data.sources, config.data.train)
  experiment = Experiment(
    config=config,
    objective=objective,
    abilities=abilities_of(objective),
    optimizer=optimizer,
    mesh=mesh,
    train=pipeline(source, config.data.train_transforms, batch_size=config.batch_size),
    train_once=once(source),
    test=once(resolve.build(data.sources, config.data.test))
    if config.data.test
    else None,
  )
  if experiment.vocabulary is not None:
    _check_vocabulary(experiment)
  # Shapes that do not fit are found here, before a workdir is touched.
  fresh = jax.eval_shape(objective.init, experiment.key, experiment.example)
  if learns:
    step = Step(experiment.key, 0, config.num_steps)
    jax.eval_shape(objective.loss, fresh, experiment.example, step)
  return experiment


def with_vocabulary(
  config: ConfigDict, *, whole: bool = False
) -> tuple[ConfigDict, Any]:
  """Gives a text system the numbers of its vocabulary that its config leaves out.

  The name of a vocabulary becomes its numbers, and what is left out is read off the
  data that the run trains on, so that its `config.json` can be read without either.

  Args:
    config: is not changed.
    whole: read the data also where only ids are left out, which have defaults; without
      it the data is read for the number of tokens alone.

  Returns:
    The config, and its training data where that had to be read, None otherwise.

  Raises:
    UserError: no such objective or vocabulary, or no such data.
  """
  if "name" not in config.objective:
    return config, None
  taken = resolve.takes(resolve.find(objectives, config.objective.name)) or set()
  keys = [key for key in vocabularies.KEYS if key in taken]
  objective = vocabularies.spelled_out(config.objective) if keys else {}
  missing = [key for key in keys if key not in objective]
  source = None
  if config.data.train and (missing if whole else "vocab_size" in missing):
    source = resolve.build(data.sources, config.data.train)
    if (vocabulary := getattr(source, "vocabulary", None)) is not None:
      special = tuple(vocabulary.special.tolist())
      found = (len(vocabulary), vocabulary.pad, vocabulary.mask, special)
      numbers = dict(zip(vocabularies.KEYS, found, strict=True))
      objective.update({key: numbers[key] for key in missing})
  if keys and objective != dict(config.objective):
    config = config.copy_and_resolve_references()
    with config.unlocked():
      config.objective = objective
  return config, source


def with_system(config: ConfigDict) -> ConfigDict:
  """Gives a finetuning config the system of the run that it begins with.

  Args:
    config: is not changed. Where `init_from` names a run and the objective takes a
      `system`, the run's objective becomes it, so that the encoders are the same.

  Raises:
    UserError: no such objective, or no such run.
  """
  if not config.init_from or "name" not in config.objective:
    return config
  if not _takes_system(config.objective.name):
    return config
  found = workdirs.read_config(config.init_from).objective
  if _takes_system(found.name):  # a classifier is finetuned again
    found = found.system
  config = config.copy_and_resolve_references()
  with config.unlocked():
    config.objective = {**config.objective, "system": found}
  return config


def _takes_system(name: str) -> bool:
  return "system" in (resolve.takes(resolve.find(objectives, name)) or ())


def _check_vocabulary(experiment: Experiment) -> None:
  """Raises a `UserError` unless model, training and held-out text share one."""
  if experiment.abilities.check_vocabulary is not None:
    experiment.abilities.check_vocabulary(experiment.vocabulary)
  if experiment.test is not None:
    other = getattr(experiment.test.source, "vocabulary", None)
    if other != experiment.vocabulary:
      raise UserError(
        "data.test has another vocabulary than data.train: expected one tokenizer, "
        "learned from the training text"
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Beginning:
  """What a run begins with in place of freshly made variables.

  Attributes:
    transfers: by part of the variables, `params` or `statistics`, what is taken of the
      run that `config.init_from` names.
    others: entries of `extra` that are other runs' variables.
    report: what was taken and what not, a line each.
  """

  transfers: Mapping[str, transfer.Transfer]
  others: Mapping[str, Variables]
  report: tuple[str, ...]

  def __call__(self, variables: Variables) -> Variables:
    """The variables that a run begins with, from fresh ones."""
    params, extra = variables
    if "params" in self.transfers:
      params = self.transfers["params"](params)
    if "statistics" in self.transfers:
      averages = self.transfers["statistics"](extra["statistics"])
      extra = {**extra, "statistics": averages}
    return Variables(params, {**extra, **self.others} if self.others else extra)


def beginning(experiment: Experiment) -> Beginning | None:
  """What the run begins with that its config names.

  Returns:
    None where the config names no other run.

  Raises:
    UserError: a workdir that it names is empty, holds no checkpoint, or one that does
      not fit.
  """
  config = experiment.config
  wanted = experiment.abilities.pretrained
  if not (config.init_from or wanted):
    return None
  for name, workdir in wanted.items():
    if not workdir:
      raise UserError(
        f"objective.{name}.workdir='': expected that of the run or of the weights that "
        f"the {name} has, or {RANDOM!r} for random ones"
      )

  def read(workdir: str, entries: Sequence[str]) -> Variables:
    """The other run's parameters, and some entries of its `extra`."""
    source = workdirs.read_config(workdir)
    checkpoints = workdirs.checkpoints(workdir, source)
    other = resolve.build(objectives, source.objective)
    step, params = networks.stored(source, other, checkpoints)
    extra = checkpoints.restore_extra_entries(step, entries) if entries else ()
    return Variables(params, extra)

  # Shapes alone: to make arrays that will not be used can take minutes.
  fresh = jax.eval_shape(experiment.objective.init, experiment.key, experiment.example)
  others = {}
  for name, workdir in wanted.items():
    like = fresh.extra[name]
    found = read(workdir, list(like.extra))
    others[name] = found if like.extra else found._replace(extra=like.extra)
    transfer.check_same(others[name], like, workdir)
  transfers, report = {}, []
  if config.init_from:
    # Running averages, of networks that normalize by their batch.
    extra = fresh.extra if isinstance(fresh.extra, dict) else {}
    averages = [name for name in extra if name == "statistics"]
    own = read(config.init_from, averages)
    parts = {"params": (fresh.params, own.params)}
    for name in averages:
      parts[name] = extra[name], dict(own.extra).get(name, {})
    source = f"init_from={config.init_from}"
    for part, (mine, theirs) in parts.items():
      transfers[part] = transfer.transfer(
        mine,
        pretrained=theirs,
        adopt=experiment.abilities.adopt or transfer.same_paths,
        source=source if part == "params" else f"{source}: {part}",
      )
    report = [f"{source}: {line}" for line in transfer.report(transfers)]
  return Beginning(transfers=transfers, others=others, report=tuple(report))
