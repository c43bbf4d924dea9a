"""`maskjax plan`, with the real compiler for TPUs where libtpu is installed."""

import importlib.util
import json
import os
import subprocess
import sys

import jax
import pytest
from helpers.running import DIGITS, ROOT, check_refusal

from maskjax import config as configs
from maskjax import planning, sharding
from maskjax.errors import UserError
from maskjax.objectives import Step, classification
from maskjax.planning import compiler, estimate
from maskjax.planning.flops import matmul_flops, training_flops
from maskjax.systems import mae

libtpu = pytest.mark.skipif(
  importlib.util.find_spec("libtpu") is None,
  reason="libtpu is not installed: pip install 'maskjax[plan]'",
)

# Small enough to compile in a few seconds.
SMALL = (
  "--config.batch_size=64",
  "--config.eval.batch_size=64",
  "--config.objective.encoder.depth=1",
  "--config.objective.encoder.width=128",
  "--config.objective.decoder.depth=1",
)


def small_config():
  config = configs.load(DIGITS)
  config.batch_size = config.eval.batch_size = 64
  config.objective.encoder.depth = config.objective.decoder.depth = 1
  config.objective.encoder.width = 128
  return config


# Mistakes; the compiler is not called


@pytest.mark.parametrize(
  ("topology", "message"),
  [
    ("v5p:4x4x5", ["'4x4x5'", "v5p", "2x2x1, 2x2x2", "16x16x24"]),
    ("v5e:16x32", ["'16x32'", "1x1, 2x2, 2x4", "16x16"]),
    ("v5p-128", ["'v5p-128'", "v4, v5e, v5p, v6e", "v5p:4x4x4"]),
    ("h100:8", ["'h100'", "v4, v5e, v5p, v6e"]),
    ("v5p", ["no slice ''", "4x4x4"]),
  ],
)
def test_a_topology_that_does_not_exist(call, topology, message):
  code, out, err = call("plan", "--config", DIGITS, f"--topology={topology}")
  line = check_refusal(code, err)
  assert out == "" and f"--topology={topology}" in line
  for words in message:
    assert words in line


def test_flags_that_are_missing(call):
  assert "--topology" in check_refusal(*call("plan", "--config", DIGITS)[::2])
  assert "--config" in check_refusal(*call("plan", "--topology=v5e:2x2")[::2])


def test_without_libtpu_the_extra_is_named(call, monkeypatch):
  monkeypatch.setattr(compiler.importlib.util, "find_spec", lambda name: None)
  code, _, err = call("plan", "--config", DIGITS, "--topology=v5e:2x2")
  assert "maskjax[plan]" in check_refusal(code, err)


@libtpu
@pytest.mark.parametrize(
  ("wrong", "message"),
  [
    ("batch_size=90", ["batch_size=90", "multiple of 4", "mesh.data=4"]),
    ("eval.batch_size=90", ["eval.batch_size=90", "multiple of 4"]),
    ("microbatches=3", ["batch_size=128", "multiple of 12", "microbatches=3"]),
    ("mesh.data=3", ["mesh.data=3", "the 4 devices"]),
    ("mesh.fsdp=8", ["mesh.fsdp=8", "the 4 devices"]),
  ],
)
def test_what_does_not_fit_the_topology(call, wrong, message):
  code, _, err = call(
    "plan", "--config", DIGITS, "--topology=v5e:2x2", f"--config.{wrong}"
  )
  line = check_refusal(code, err)
  for words in message:
    assert words in line


# Plans


@libtpu
@pytest.mark.parametrize("topology", ["v4:2x2x1", "v5e:1x1", "v5p:2x2x1", "v6e:2x2"])
def test_each_kind_of_chip(topology):
  config = small_config()
  config.objective.scan = topology == "v5e:1x1"
  plan = planning.plan(config, topology)
  assert plan.fits and not plan.refusal
  assert 0 < plan.times.share_of_peak < 1
  times = plan.times
  assert times.lowest_seconds <= times.step_seconds <= times.highest_seconds
  assert plan.memory.total < plan.memory.available
  assumed = [w for w in plan.warnings if "assumed" in w]
  assert bool(assumed) == (topology[:3] in ("v4:", "v6e"))
  if plan.where.num_chips > 1:
    # The gradients of all parameters, in one type or the other.
    moved = plan.costs.collective_bytes["all-reduce"]
    count = plan.memory.parameters / 4
    assert 2 * count <= moved <= 4.1 * count + 1000
  json.dumps(planning.as_json(plan))


@libtpu
def test_command_line():
  """In a process of its own: nothing but the plan is printed."""
  done = subprocess.run(
    [sys.executable, "-m", "maskjax.main", "plan", "--config", DIGITS, *SMALL,
     "--topology=v5e:2x2", "--json", "--config.mesh.fsdp=4",
     "--config.microbatches=2", "--config.ema_decay=0.9"],
    cwd=ROOT, capture_output=True, text=True,
  )  # fmt: skip
  assert (done.returncode, done.stderr) == (0, "")
  found = json.loads(done.stdout)
  assert set(found) == {
    "topology", "chips", "mesh", "batch_size", "fits", "memory", "hbm", "flops",
    "model_flops", "hbm_bytes", "collective_bytes", "share_of_peak", "step_seconds",
    "step_seconds_lowest", "step_seconds_highest", "roofline_seconds",
    "cycles_seconds", "collective_seconds",
    "unpriced", "examples_per_second", "hours", "calibrated_on_hardware", "refusal",
    "warnings", "ways_out",
  }  # fmt: skip
  assert found["fits"] is True and found["refusal"] is None
  assert found["mesh"] == {"data": 1, "fsdp": 4, "tensor": 1}
  assert found["hbm"] == 16 * 2**30
  assert found["memory"]["total"] == sum(
    size for part, size in found["memory"].items() if part != "total"
  )
  assert found["examples_per_second"] == pytest.approx(64 / found["step_seconds"])
  assert found["step_seconds"] == pytest.approx(
    found["cycles_seconds"] + found["collective_seconds"]
  )
  assert found["hours"] == pytest.approx(1800 * found["step_seconds"] / 3600)
  # Adam's two moments; a quarter of each kernel on each chip.
  ratio = found["memory"]["optimizer"] / found["memory"]["parameters"]
  assert ratio == pytest.approx(2, abs=0.01)
  assert "all-gather" in found["collective_bytes"]


@libtpu
def test_libtpu_stays_out_of_other_runs():
  """It would print, and take over the signals by which a run is stopped."""
  code = (
    "from maskjax import libtpu; libtpu.settle(); import jax; jax.devices(); "
    "print('libtpu.so' in open('/proc/self/maps').read())"
  )
  environment = {k: v for k, v in os.environ.items() if k != "JAX_PLATFORMS"}
  done = subprocess.run(
    [sys.executable, "-c", code], cwd=ROOT, env=environment,
    capture_output=True, text=True,
  )  # fmt: skip
  assert (done.stdout, done.stderr) == ("False\n", "")


@libtpu
def test_what_does_not_fit_is_reported(call):
  code, out, err = call(
    "plan", "--config", DIGITS, "--topology=v5e:1x1", *SMALL,
    "--config.batch_size=4194304", "--config.eval.batch_size=64",
  )  # fmt: skip
  assert (code, err) == (0, "")
  assert "DOES NOT FIT" in out and "microbatches=2" in out
  assert "the largest part: activations and temporaries" in out
  assert "no time" not in out and "estimated step" not in out


# Reading the compiler's report


def compiled(**changes):
  """A step of 8 cycles on two chips, all in one operation."""
  fields = {
    "mesh": {"data": 2, "fsdp": 1, "tensor": 1},
    "held_bytes": {"parameters": 4000, "optimizer": 8000, "other": 100},
    "parameter_count": 1000,
    "flops": 2e6,
    "model_flops": 1e6,
    "text": (
      "ENTRY %m (p: f32[8]) -> f32[8] {\n"
      "  %p = f32[8]{0} parameter(0)\n"
      "  %r = f32[1000]{0} all-reduce(%p), channel_id=1, replica_groups={{0,1}}\n"
      '  ROOT %a = f32[8]{0} add(%p, %p), backend_config={"estimated_cycles":"17500"}\n'
      "}\n"
    ),
    "optimal_seconds": 1e-6,
    "total_bytes": 20000,
  }
  return compiler.Compiled(**{**fields, **changes})


def estimated(**changes):
  config = small_config()
  where = planning.parse_topology("v5p:2x2x1")
  return estimate.estimate(config, where, compiled(**changes))


def test_times_by_hand():
  times = estimated().times
  assert times.cycles_seconds == pytest.approx(1e-5)  # at 1.75 GHz
  assert times.collective_seconds == pytest.approx(4000 / 600e9)
  assert times.step_seconds == pytest.approx(1e-5 + 4000 / 600e9)
  assert times.roofline_seconds == pytest.approx(1e-6)
  assert times.lowest_seconds == times.roofline_seconds
  assert times.highest_seconds == times.step_seconds
  assert times.share_of_peak == pytest.approx(1e6 / 459e12 / 1e-5)


def test_parts_of_memory_add_up():
  memory = estimated().memory
  assert memory.total == 20000
  assert memory.temporaries == 20000 - 4000 - 8000 - 100
  assert memory.largest == "optimizer"


@pytest.mark.parametrize(
  ("old", "new", "message"),
  [
    ('"17500"', '"0"', "no cycles"),
    ("ROOT %a", '  %k = f32[8]{0} custom-call(%p), custom_call_target='
     '"tpu_custom_call"\n  ROOT %a', "1 custom kernels"),
    ("ROOT %a", "  %w = f32[8]{0} while(%p), condition=%m, body=%n\n  ROOT %a",
     "turns of 1 loops"),
  ],
)  # fmt: skip
def test_a_time_that_cannot_be_stood_behind_is_refused(old, new, message):
  text = compiled().text.replace(old, new)
  if "while" in new:
    text = "%n (q: f32[8]) -> f32[8] {\n  ROOT %q = f32[8]{0} parameter(0)\n}\n" + (
      text.replace("condition=%m", "condition=%n")
    )
  plan = estimated(text=text)
  assert plan.times is None and message in plan.refusal
  written = planning.as_json(plan)
  assert written["fits"] and written["step_seconds"] is None
  assert written["share_of_peak"] is None and message in written["refusal"]
  assert f"no time: {plan.refusal}" in planning.report(plan)


def test_a_lost_sharding_is_warned_of():
  assert not estimated().warnings
  (warning,) = estimated(parameter_count=199).warnings
  assert "a sharding was lost" in warning and "10 times" in warning
  assert not estimated(
    parameter_count=199, mesh={"data": 1, "fsdp": 1, "tensor": 2}
  ).warnings


def test_ways_out_begin_with_the_largest_part():
  needed = {"text": "", "available_bytes": 15000}
  plan = estimated(**needed)
  assert not plan.fits and "fsdp" in plan.ways_out[0]
  assert "bfloat16" in plan.ways_out[1]
  plan = estimated(**needed, held_bytes={"parameters": 1, "optimizer": 2, "other": 3})
  assert "remat" in plan.ways_out[0] and "scan" in plan.ways_out[1]
  assert "microbatches=2" in plan.ways_out[2]
  assert planning.as_json(plan)["memory"]["activations and temporaries"] == 19994


@pytest.mark.parametrize(
  ("message", "needed"),
  [
    ("RESOURCE_EXHAUSTED: Used 20.00G of 15.75G hbm. Exceeded by 4.25G.", 20),
    (
      "memory required for HLO temporaries (18.00G) exceeds available HBM (15.75G).",
      20,
    ),
  ],
)
def test_complaints_of_the_compiler_are_read(message, needed):
  assert compiler._needed(message, 2 * 2**30) == (needed * 2**30, 15.75 * 2**30)


def test_other_complaints_are_passed_on():
  with pytest.raises(UserError, match="refuses this step: INTERNAL: broken"):
    compiler._needed("INTERNAL: broken", 0)


# Shapes and operations


def test_shapes_of_batches_need_no_data():
  small = {"width": 8, "depth": 1, "heads": 2}
  options = {"image_size": (8, 4), "channels": 3, "patch_size": (2, 1)}
  for objective, more in (
    (mae(**options, encoder=small, decoder=small), set()),
    (
      classification(system=dict(name="mae", **options, encoder=small), num_classes=5),
      {"label"},
    ),
  ):
    shapes = objective.batch_shapes(6)
    assert set(shapes) == {"image", "index"} | more
    assert shapes["image"].shape == (6, 8, 4, 3)
    variables = jax.eval_shape(objective.init, jax.random.key(0), shapes)
    jax.eval_shape(objective.loss, variables, shapes, Step(jax.random.key(0)))


def test_without_its_word_an_objective_is_planned_by_the_data():
  class Custom:
    def init(self, key, batch):
      pass

    def loss(self, variables, batch, step):
      pass

  shapes = compiler.batch_shapes(small_config(), Custom())
  assert shapes["image"].shape == (64, 8, 8, 1)
  assert shapes["label"].shape == shapes["index"].shape == (64,)


def test_operations_of_a_loss_and_its_gradient():
  def loss(weights, x):
    def layer(x, w):
      return jax.numpy.tanh(x @ w), None

    return jax.lax.scan(jax.checkpoint(layer), x, weights)[0].sum()

  weights = jax.ShapeDtypeStruct((5, 8, 8), "float32")
  x = jax.ShapeDtypeStruct((3, 8), "float32")
  forward = 5 * 2 * 3 * 8 * 8
  assert matmul_flops(loss, weights, x) == forward
  # Nothing needs the gradient of x, but a loop has the same body in every turn.
  assert training_flops(loss, weights, x) == 3 * forward

  def one(w, x):
    return (x @ w).sum()

  single = jax.ShapeDtypeStruct((8, 8), "float32")
  assert training_flops(one, single, x) == 2 * 2 * 3 * 8 * 8


def test_devices_are_those_of_the_mesh():
  assert not sharding.for_tpu()
  planned = jax.sharding.AbstractMesh(
    (1,), ("data",), abstract_device=jax.sharding.AbstractDevice(
      device_kind="TPU v5", num_cores=1, platform="tpu"
    ),
  )  # fmt: skip
  with jax.sharding.use_abstract_mesh(planned):
    assert sharding.for_tpu()


def test_no_such_chip():
  with pytest.raises(UserError, match="did you mean 'v5p'"):
    planning.parse_topology("v5:4x4x4")
