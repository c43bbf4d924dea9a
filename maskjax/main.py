"""The command line: `maskjax train|eval|fill|check|plan|pack|convert|list`."""

import dataclasses
import json
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from maskjax import config as configs
from maskjax import libtpu, storage
from maskjax.errors import (
  RunError,
  RunWarning,
  TerminatedError,
  UserError,
  did_you_mean,
)

# What sysexits.h calls a temporary failure: whoever started the run may do so again.
TERMINATED = 75

_SHOW_WARNING = warnings.showwarning

USAGE = """\
usage: maskjax COMMAND [flags]

  maskjax train --config FILE[:SETTING] --workdir DIR [--config.any.key=value ...]
      trains, or goes on where an earlier run in DIR stopped; with --distributed as
      one of many processes, see launch/
  maskjax eval --workdir DIR [--step N] [--config FILE[:SETTING] ...]
      probes a checkpoint again, and draws its reconstructions
  maskjax fill --workdir DIR --text 'Its [MASK] is' [--text ...] [--top 5]
      predicts the masked tokens of texts, by a run on text
  maskjax check --config FILE[:SETTING] [--record [--seeds 4]]
      trains anew, and compares what it writes with what runs before it wrote
  maskjax plan --config FILE[:SETTING] --topology v5p:4x4x4 [--json]
      compiles the training step for TPUs that are not here: does it fit, how fast
  maskjax pack --config FILE[:SETTING] --out DIR
      tokenizes and packs the config's texts, training and held-out ones, once for all
  maskjax convert --from_hf DIR --config FILE[:SETTING] --workdir DIR
  maskjax convert --workdir DIR [--step N] --to_hf DIR
      reads or writes weights in the Hugging Face layout
  maskjax list [--json|--markdown]
      the systems, their papers and configs"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
  """What stands after a command.

  Attributes:
    options: the flags but for the config's.
    spec: `FILE[:SETTING]` of `--config`.
    config: what it names, with all changes.
  """

  options: flags.FlagValues
  spec: str | None
  config: ConfigDict | None


def train(given: Arguments) -> None:
  """`maskjax train`."""
  from maskjax import runs

  workdir = _given("workdir", given.options.workdir)
  runs.train(_given("config", given.config), workdir)


def evaluate(given: Arguments) -> None:
  """`maskjax eval`."""
  from maskjax import runs

  workdir = _given("workdir", given.options.workdir)
  runs.evaluate(workdir, config=given.config, step=given.options.step)


def fill(given: Arguments) -> None:
  """`maskjax fill`."""
  from maskjax import decoding

  texts = _given("text", given.options.text)
  workdir = _given("workdir", given.options.workdir)
  trained = decoding.load(workdir, step=given.options.step)
  found = decoding.fill(trained, texts, top=given.options.top)
  if given.options.json:
    named = [
      {"text": text, "masks": [[p._asdict() for p in mask] for mask in masks]}
      for text, masks in zip(texts, found, strict=True)
    ]
    print(json.dumps(named, indent=2))
    return
  for text, masks in zip(texts, found, strict=True):
    print(text)
    for number, predictions in enumerate(masks, start=1):
      shown = "  ".join(
        f"{(p.text.strip() or p.text)!r} {p.probability:.1%}" for p in predictions
      )
      print(f"  {number}: {shown}")


def check(given: Arguments) -> None:
  """`maskjax check`."""
  from maskjax import curves

  spec, config = _given("config", given.spec), _given("config", given.config)
  if given.options.record:
    print(f"recorded: {curves.record(spec, config, seeds=given.options.seeds)}")
    return
  points = curves.check(spec, config)
  print(curves.table(points))
  outside = [point for point in points if not point.is_inside]
  if outside:
    first = min(outside, key=lambda point: point.step)
    raise RunError(
      f"{len(outside)} of {len(points)} numbers are outside of their bands, first "
      f"{first.name} at step {first.step}"
    )
  print(f"all {len(points)} numbers are in their bands")


def plan(given: Arguments) -> None:
  """`maskjax plan`."""
  config = _given("config", given.config)
  topology = _given("topology", given.options.topology)
  import jax

  # The plan needs no device of this machine but one that holds a key.
  jax.config.update("jax_platforms", "cpu")
  from maskjax import planning

  found = planning.plan(config, topology)
  if given.options.json:
    print(json.dumps(planning.as_json(found), indent=2))
  else:
    print(planning.report(found))


def pack(given: Arguments) -> None:
  """`maskjax pack`."""
  from maskjax.data import shards

  config = _given("config", given.config)
  folder = _given("out", given.options.out)
  for split in ("train", "test"):
    source = config.data[split].to_dict() if config.data[split] else {}
    if not source and split == "test":
      continue
    if source.pop("name", None) != "text":
      raise UserError(f"config.data.{split}.name: expected 'text', which can be packed")
    count = shards.write(folder, split=split, **source)
    print(f"{split}: {count} rows of {source.get('length', 512)} tokens in {folder}")


def convert(given: Arguments) -> None:
  """`maskjax convert`."""
  from maskjax.convert import weights

  options = given.options
  workdir = _given("workdir", options.workdir)
  if (options.from_hf is None) == (options.to_hf is None):
    raise UserError("maskjax convert: expected either --from_hf or --to_hf")
  if options.from_hf is not None:
    weights.import_weights(options.from_hf, _given("config", given.config), workdir)
  else:
    weights.export_weights(workdir, options.to_hf, step=options.step)


def list_systems(given: Arguments) -> None:
  """`maskjax list`."""
  from maskjax.systems import records

  rows = [dataclasses.asdict(system) for system in records()]
  if given.options.json:
    print(json.dumps(rows, indent=2))
    return
  if given.options.markdown:
    from maskjax import catalog

    print(catalog.page(records()))
    return
  columns = [name for name in rows[0] if name != "differs"]
  width = {c: max(len(c), *(len(row[c]) for row in rows)) for c in columns}
  for row in [dict(zip(columns, columns, strict=True)), *rows]:
    print("  ".join(f"{row[c]:<{width[c]}}" for c in columns).rstrip())


COMMANDS = {
  "train": train,
  "eval": evaluate,
  "fill": fill,
  "check": check,
  "plan": plan,
  "pack": pack,
  "convert": convert,
  "list": list_systems,
}


def main() -> None:
  """Runs the command of `sys.argv`; exits with 2 after a mistake of the user."""
  # Orbax reports its progress as warnings, and what it raises once more in full.
  for library in ("absl", "asyncio", "gcsfs", "google"):
    logging.getLogger(library).setLevel(logging.CRITICAL)
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  libtpu.settle()
  # On a full disk Orbax leaves an event loop in which TensorStore still writes.
  sys.unraisablehook = _print_unraisable
  warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
  warnings.showwarning = _print_warning
  try:
    sys.exit(_run(sys.argv))
  except UserError as error:
    _fail(error, 2)
  except TerminatedError as error:
    _fail(error, TERMINATED)
  except RunError as error:
    _fail(error, 1)
  except storage.errors() as error:
    where = getattr(error, "filename", None)
    _fail(
      f"cannot read or write{f' {where}' if where else ''}: {storage.brief(error)}", 2
    )
  except KeyboardInterrupt:
    _fail("interrupted; the same command goes on from the last checkpoint", 130)
  except Exception as error:
    if not _distributed():
      raise
    traceback.print_exc()
    what = " ".join(str(error).split())[:200]
    _fail(f"{what}; if another process ended first, that is why", 1)


def _run(argv: Sequence[str]) -> int:
  if len(argv) < 2 or argv[1] in ("-h", "--help", "help"):
    print(USAGE)
    return 0 if len(argv) > 1 else 2
  name = argv[1]
  if name not in COMMANDS:
    raise UserError(f"no command {name!r}: {did_you_mean(name, COMMANDS)}")
  given = _parse(argv[2:])
  options, config = given.options, given.config
  if config is not None and config.get("compilation_cache"):
    import jax

    jax.config.update("jax_compilation_cache_dir", config.compilation_cache)
  if not options.distributed:
    COMMANDS[name](given)
    return 0
  from maskjax import distributed

  distributed.initialize()
  COMMANDS[name](given)
  distributed.wait_for_all()
  return 0


def _parse(arguments: Sequence[str]) -> Arguments:
  """Reads the flags, and the config that they name and change.

  The flags are not absl's global ones, so that importing MaskJAX defines none.
  """
  options = flags.FlagValues()
  flags.DEFINE_string("workdir", None, "where a run lives", flag_values=options)
  flags.DEFINE_integer("step", None, "which checkpoint", flag_values=options)
  flags.DEFINE_string("out", None, "a folder to write", flag_values=options)
  flags.DEFINE_multi_string("text", None, "with masks", flag_values=options)
  flags.DEFINE_integer("top", 5, "predictions for a mask", flag_values=options)
  flags.DEFINE_string("topology", None, "chips to plan for", flag_values=options)
  flags.DEFINE_string("from_hf", None, "a folder to read", flag_values=options)
  flags.DEFINE_string("to_hf", None, "a folder to write", flag_values=options)
  flags.DEFINE_boolean("record", False, "make a curve", flag_values=options)
  flags.DEFINE_integer("seeds", 4, "runs of a curve", flag_values=options)
  flags.DEFINE_boolean("json", False, "print JSON", flag_values=options)
  flags.DEFINE_boolean("markdown", False, "print Markdown", flag_values=options)
  flags.DEFINE_boolean(
    "distributed", False, "whether this is one of many", flag_values=options
  )
  spec, rest = _take_config(arguments)
  config = None
  sys.argv = ["maskjax", *rest]  # where ml_collections looks for overrides
  if spec is not None:
    config = configs.load(spec)
    _check_keys(rest, config)
    config_flags.DEFINE_config_dict("config", config, flag_values=options)
  elif any(argument.startswith("--config.") for argument in rest):
    raise UserError("--config.key=value: expected --config FILE as well")
  try:
    left = options(sys.argv)[1:]
  except flags.IllegalFlagValueError as error:
    raise UserError(_wrong_type(str(error), config)) from error
  except flags.Error as error:
    raise UserError(str(error)) from error
  if left:
    raise UserError(f"expected flags alone after the command, found {left[0]!r}")
  if config is not None:
    config = config.copy_and_resolve_references()
  return Arguments(options=options, spec=spec, config=config)


def _take_config(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
  """Splits `--config FILE` or `--config=FILE` from the other arguments."""
  spec, rest, waiting = None, [], False
  for argument in arguments:
    if waiting:
      spec, waiting = argument, False
    elif argument == "--config":
      waiting = True
    elif argument.startswith("--config="):
      spec = argument.partition("=")[2]
    else:
      rest.append(argument)
  if waiting:
    raise UserError("--config: expected FILE or FILE:SETTING after it")
  return spec, rest


def _check_keys(arguments: Sequence[str], config: ConfigDict) -> None:
  """Raises a `UserError` for a key that the config does not have."""
  for argument in arguments:
    match = re.match(r"--(?:no)?config\.([^=\[]+)", argument)
    if not match:
      continue
    at: Any = config
    for part in match[1].split("."):
      if not isinstance(at, ConfigDict) or part not in at:
        known = configs.flat(config)
        near = did_you_mean(match[1], known).split(" (")[0]
        hint = near if near.startswith("did") else f"the config has {', '.join(known)}"
        raise UserError(f"no key --config.{match[1]}: {hint}")
      at = at[part]
    if isinstance(at, ConfigDict):
      keys = ", ".join(f"--config.{match[1]}.{key}" for key in configs.flat(at))
      raise UserError(f"--config.{match[1]} is no single value: expected {keys}")


def _wrong_type(message: str, config: ConfigDict | None) -> str:
  """Names the type of a flag, instead of how parsing it failed."""
  match = re.match(r"flag --config\.([^=]+)=(.*?): ", message)
  known = {} if config is None else configs.flat(config)
  if not match or match[1] not in known:
    return message
  value = known[match[1]]
  return (
    f"--config.{match[1]}={match[2]}: expected {type(value).__name__}, "
    f"for example {value!r}"
  )


def _given(name: str, value: Any) -> Any:
  if value is None:
    raise UserError(f"--{name} is missing: expected it with this command")
  return value


def _print_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
  if str(unraisable.exc_value) != "Event loop is closed":
    sys.__unraisablehook__(unraisable)


def _print_warning(
  message: Warning | str, category: type[Warning], *where: Any, **more: Any
) -> None:
  if issubclass(category, RunWarning):
    print(f"maskjax: warning: {message}", file=sys.stderr)
  else:
    _SHOW_WARNING(message, category, *where, **more)


def _distributed() -> bool:
  """Whether this process is one of many, without importing JAX."""
  return "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized()


def _fail(message: object, code: int) -> None:
  if not _distributed():
    print(f"maskjax: {message}", file=sys.stderr)
    sys.exit(code)
  import jax

  from maskjax import distributed

  who = f"process {jax.process_index()} of {jax.process_count()}"
  # In one piece, so that no other process writes in the midst of the line.
  sys.stderr.write(f"maskjax: {who}: {message}\n")
  sys.stderr.flush()
  sys.stdout.flush()
  if code == TERMINATED:
    distributed.wait_for_all()  # all of them are here or on their way
    sys.exit(code)
  distributed.leave(code)


if __name__ == "__main__":
  main()
