"""Runs of a config in a workdir: training, evaluation and what they leave there."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from maskjax import config as configs
from maskjax import (
  distributed,
  evaluation,
  metrics,
  networks,
  plots,
  storage,
)
from maskjax import workdir as workdirs
from maskjax.errors import RunError
from maskjax.experiment import Experiment, beginning, prepare
from maskjax.objectives import Variables
from maskjax.training import TrainState, fit, transfer


def train(config: ConfigDict, workdir: str | Path) -> None:
  """Trains a config in a workdir, from where it stopped before.

  Leaves there `config.json`, `metrics.jsonl`, TensorBoard events, `checkpoints/`
  and, of a system that can draw them, `reconstructions.png`; prints the probes.

  Raises:
    UserError: see `prepare`; or the workdir belongs to another config, or another run
      is writing there.
    RunError: see `maskjax.training.fit`.
    TerminatedError: SIGTERM came; the state is saved.
  """
  experiment = prepare(config)
  config = experiment.config  # with its vocabulary, or the system that is finetuned
  initial = beginning(experiment)
  checkpoints = workdirs.checkpoints(workdir, config)
  if saved := checkpoints.steps():
    checkpoints.check_whole(saved[-1])
  elif initial is not None:
    for line in initial.report:
      _say(line)
  with (
    workdirs.opened(config, workdir) as opened,
    _written(opened),
    contextlib.ExitStack() as stack,
  ):
    stack.callback(checkpoints.close)
    if _is_first() and experiment.vocabulary is not None:
      experiment.vocabulary.save(opened.local / workdirs.TOKENIZER)
    writer = _writer(opened, config, checkpoints.newest() or 0)
    stack.callback(writer.close)

    def evaluate(step: int, state: TrainState) -> dict[str, float]:
      trained = networks.of_state(config, experiment.objective, state)
      return _held_out(experiment, step, trained)

    with distributed.termination() as stop:
      state = fit(
        experiment.objective,
        experiment.train,
        optimizer=experiment.optimizer,
        num_steps=config.num_steps,
        seed=config.seed,
        mesh=experiment.mesh,
        microbatches=config.microbatches,
        batch_warmup=tuple(config.batch_warmup),
        ema_decay=config.ema_decay,
        initial=initial,
        writer=writer,
        log_every=config.log_every,
        evaluate=evaluate if experiment.test else None,
        eval_every=config.eval.every,
        checkpoints=checkpoints,
        checkpoint_every=config.checkpoint.every,
        stop=stop,
        profile=tuple(config.profile),
        profile_folder=opened.local / "profile",
      )
    trained = networks.of_state(config, experiment.objective, state)
    _report(experiment, trained, config.num_steps, opened, writer)


def evaluate(
  workdir: str | Path, *, config: ConfigDict | None = None, step: int | None = None
) -> None:
  """Probes a checkpoint, and draws its reconstructions.

  Args:
    workdir: of a run, or of imported weights.
    config: another config than the workdir's own, for example with other data.
    step: which checkpoint; the newest when None.

  Raises:
    UserError: no such workdir or checkpoint, or it does not fit the config.
  """
  folder = storage.reach(workdir)
  config = workdirs.read_config(folder) if config is None else config
  experiment = prepare(config, learns=False)
  untrained = experiment.untrained()
  checkpoints = workdirs.checkpoints(folder, config)
  step, params = networks.stored(config, experiment.objective, checkpoints, step)
  transfer.check_same(params, untrained.params, folder)
  extra = checkpoints.restore_extra(step, untrained.extra)
  trained = Variables(params, extra)
  with workdirs.held(folder) as held:
    path = held.local / workdirs.METRICS
    writer = metrics.Writers([metrics.JsonLines(path)] if _is_first() else [])
    if experiment.test and experiment.abilities.loss is not None:
      values = _held_out(experiment, step, trained)
      writer.write(step, values)
      _say("  ".join(f"{name} {value:.4g}" for name, value in values.items()))
    _report(experiment, trained, step, held, writer)


@contextlib.contextmanager
def _written(workdir: workdirs.Workdir) -> Iterator[None]:
  """Raises a `RunError` where a workdir cannot be written any more."""
  try:
    yield
  except storage.errors() as error:
    raise RunError(
      f"workdir {workdir.folder} cannot be written: {storage.brief(error)}"
    ) from error


def _writer(
  workdir: workdirs.Workdir, config: ConfigDict, start: int
) -> metrics.Writers:
  """All writers of a run; none but in the first process."""
  if not _is_first():
    return metrics.Writers()
  writers: list[metrics.Writer] = [
    metrics.Terminal(config.num_steps, start_step=start),
    metrics.JsonLines(workdir.local / workdirs.METRICS, resume_step=start),
    metrics.TensorBoard(workdir.local, resume_step=start),
  ]
  if config.wandb_project:
    writers.append(
      metrics.WeightsAndBiases(
        project=config.wandb_project,
        folder=workdir.folder,
        config=configs.plain(config),
      )
    )
  return metrics.Writers(writers, settle=workdir.settle)


def _held_out(
  experiment: Experiment, step: int, variables: Variables
) -> dict[str, float]:
  """Numbers on the held-out data, as `eval/...`."""
  assert experiment.test is not None
  numbers = evaluation.held_out_loss(
    experiment.objective,
    variables,
    experiment.test,
    step=experiment.step(step),
    mesh=experiment.mesh,
  )
  return {f"eval/{name}": value for name, value in numbers.items()}


def _report(
  experiment: Experiment,
  trained: Variables,
  step: int,
  workdir: workdirs.Workdir,
  writer: metrics.Writer,
) -> None:
  """Probes and draws the variables of a step."""
  objective, test = experiment.objective, experiment.test
  offered = experiment.abilities
  values: dict[str, float] = {}
  if test and offered.targets is not None:
    values["eval/mean_target_loss"] = evaluation.mean_target_loss(
      objective,
      experiment.train_once,
      test,
      step=experiment.step(step),
      mesh=experiment.mesh,
    )
  probes = experiment.config.eval.probes
  labeled = offered.features is not None and "label" in experiment.example
  if test and probes and labeled:
    variants = {"trained": trained, "untrained": experiment.untrained()}
    scores = evaluation.run_probes(
      objective,
      variants,
      experiment.train_once,
      test,
      mesh=experiment.mesh,
      probes=probes,
    )
    for row, accuracies in scores.items():
      prefix = "" if row == "trained" else row.replace(" ", "_") + "_"
      values.update({f"eval/{prefix}{name}": v for name, v in accuracies.items()})
    _say(evaluation.probe_table(scores))
  if values:
    writer.write(step, values)
  if offered.reconstruct is not None and experiment.config.eval.pictures:
    name = "reconstructions.png"
    picture = _reconstructions(experiment, trained, step)
    if _is_first():
      plots.save_png(workdir.local / name, picture)
      writer.image(step, "reconstructions", picture)
    _say(f"reconstructions of step {step}: {workdir.folder / name}")


def _reconstructions(
  experiment: Experiment, variables: Variables, step: int
) -> np.ndarray:
  """Draws the first held-out images, in the colors they had in their files."""
  config = experiment.config
  # The same images in every process.
  images_once = dataclasses.replace(
    experiment.test or experiment.train_once, process_index=0, process_count=1
  )
  with images_once(0) as batches:
    batch = {k: v[: config.eval.pictures] for k, v in next(batches).items()}
  at = evaluation.evaluation_step(experiment.step(step))
  draw = jax.jit(
    experiment.objective.reconstruct,
    out_shardings=NamedSharding(experiment.mesh, P()),
  )
  images = draw(variables, batch, at)
  changes = [t for t in config.data.test_transforms if not isinstance(t, str)]
  normal = next((t for t in changes if t["name"] == "normalize"), None)
  colors = {"mean": normal["mean"], "std": normal["std"]} if normal else {}
  order = ("original", "masked", "target", "reconstructed")
  names = [name for name in order if name in images]
  names += [name for name in images if name not in order]
  return plots.side_by_side(
    {name: np.asarray(images[name]) for name in names}, **colors
  )


def _is_first() -> bool:
  return jax.process_index() == 0


def _say(text: str) -> None:
  if _is_first():
    print(text, flush=True)
