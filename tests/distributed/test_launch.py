"""The scripts of launch/: local.py for real, the others against their tools."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers.quick_xla import QUICK_XLA
from helpers.running import DIGITS, ROOT, TINY, check_refusal, finish, process

from maskjax import metrics

LAUNCH = ROOT / "launch"
HERE = Path(__file__).parent


def local(*command, processes, devices=4):
  """Starts `maskjax` as several processes."""
  return subprocess.Popen(
    [
      *(sys.executable, LAUNCH / "local.py", "--processes", str(processes)),
      *("--devices", str(devices), "--", *map(str, command)),
    ],
    env={
      **os.environ,
      "PYTHONPATH": f"{ROOT}:{HERE}:{HERE.parent}",
      "XLA_FLAGS": QUICK_XLA,
    },
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def train(workdir, *more):
  return ("train", "--config", HERE / "linear.py", "--workdir", workdir, *more)


def losses(workdir):
  lines = metrics.read_json_lines(workdir / "metrics.jsonl")
  return [line["train/loss"] for line in lines if "train/loss" in line]


def wait_for_losses(run, workdir, count):
  until = time.monotonic() + 120
  while not (workdir / "metrics.jsonl").exists() or len(losses(workdir)) < count:
    assert run.poll() is None, run.communicate()
    assert time.monotonic() < until
    time.sleep(0.01)


def children(run):
  """The processes that `local.py` started, in order."""
  listed = subprocess.run(
    ["pgrep", "-P", str(run.pid)], capture_output=True, text=True, check=True
  )
  return [int(pid) for pid in listed.stdout.split()]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
  """The losses of a run on one process."""
  folder = tmp_path_factory.mktemp("undisturbed")
  run = local(*train(folder / "run"), processes=1)
  _, err = finish(run)
  assert run.returncode == 0, err
  return losses(folder / "run")


def test_stopped_on_four_and_resumed_on_two(undisturbed, tmp_path):
  """SIGTERM to one process stops all; fewer, with more devices, go on."""
  workdir = tmp_path / "run"
  run = local(*train(workdir, "--config.mesh.fsdp=2"), processes=4)
  wait_for_losses(run, workdir, 5)
  os.kill(children(run)[-1], signal.SIGTERM)
  _, err = finish(run)
  assert run.returncode == 75, err
  assert err.count("stopped by SIGTERM after step") == 4, err
  (first,) = [int(p.name) for p in (workdir / "checkpoints").iterdir()]
  assert 5 <= first < 40

  more = ("--config.mesh.fsdp=4", "--config.mesh.data=2")
  run = local(*train(workdir, *more), processes=2, devices=8)
  _, err = finish(run)
  assert run.returncode == 0, err
  np.testing.assert_allclose(losses(workdir), undisturbed, rtol=1e-5)


def test_a_process_that_dies_stops_the_others(tmp_path):
  workdir = tmp_path / "run"
  command = train(workdir, "--config.num_steps=100000")
  run = local(*command, processes=2)
  wait_for_losses(run, workdir, 5)
  begun = time.monotonic()
  os.kill(children(run)[1], signal.SIGKILL)
  _, err = finish(run)
  assert time.monotonic() - begun < 60
  assert run.returncode != 0
  assert "process 1 ended with SIGKILL" in err
  assert "process 0 of 2: " in err or "another task died" in err, err


def test_a_mistake_stops_all_with_one_line_each(tmp_path):
  (tmp_path / "checkpoints").mkdir()
  run = local(*train(tmp_path), processes=2)
  _, err = finish(run)
  assert run.returncode == 2
  lines = sorted(x for x in err.splitlines() if x.startswith("maskjax: "))
  assert [line[:24] for line in lines] == [
    "maskjax: process 0 of 2:",
    "maskjax: process 1 of 2:",
  ], err
  assert all("has checkpoints but no config.json" in line for line in lines)


def test_jobset():
  jobset = yaml.safe_load((LAUNCH / "jobset.yaml").read_text())
  (group,) = jobset["spec"]["replicatedJobs"]
  job = group["template"]["spec"]
  pod = job["template"]["spec"]
  assert job["parallelism"] == job["completions"]
  chips = pod["containers"][0]["resources"]["limits"]["google.com/tpu"]
  rows, columns = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")
  assert chips * job["completions"] == int(rows) * int(columns)
  assert pod["containers"][0]["command"] == ["maskjax", "train", "--distributed"]


@pytest.fixture
def tool(tmp_path):
  """Puts a program in front of the others that keeps what it is called with."""

  def make(name, answer):
    program = tmp_path / "bin" / name
    program.parent.mkdir(exist_ok=True)
    log = tmp_path / f"{name}.log"
    program.write_text(f'#!/usr/bin/env bash\necho "$@" >> {log}\n{answer}\n')
    program.chmod(0o755)
    return log

  return make


def script(name, *arguments, bin, **environment):
  return subprocess.run(
    ["bash", LAUNCH / name, *arguments],
    env={**os.environ, "PATH": f"{bin}:{os.environ['PATH']}", **environment},
    capture_output=True,
    text=True,
    timeout=60,
  )


def test_tpu_pod_starts_again_after_preemption(tool, tmp_path):
  """The slice is there, is preempted once, and then the run ends well."""
  state = tmp_path / "state"
  log = tool(
    "gcloud",
    f"""
case "$*" in
  *create*) echo READY > {state} ;;
  *" delete "*) rm -f {state} ;;
  *describe*) cat {state} ;;
  *"cat maskjax.exit"*)
    if [[ -e {tmp_path}/once ]]; then echo 0; else
      touch {tmp_path}/once; echo PREEMPTED > {state}; fi ;;
esac""",
  )
  done = script(
    "tpu_pod.sh",
    "run",
    bin=tmp_path / "bin",
    PAUSE="0.01",
    SOURCE="maskjax",
    NAME="pod",
  )
  assert done.returncode == 0, done.stderr
  called = log.read_text()
  assert called.count("tpu-vm create pod") == 2
  assert called.count("maskjax train --distributed") == 2
  assert "--worker=all" in called and "--spot" in called
  assert "done; the slice pod still exists" in done.stdout


def test_tpu_pod_stops_after_a_mistake(tool, tmp_path):
  tool(
    "gcloud",
    'case "$*" in *describe*) echo READY ;; *"cat maskjax.exit"*) echo 2 ;; esac',
  )
  done = script("tpu_pod.sh", "run", bin=tmp_path / "bin", PAUSE="0.01", SOURCE="x")
  assert done.returncode == 2
  assert "an error in the command" in done.stderr


def test_tpu_pod_prints_its_usage():
  done = script("tpu_pod.sh", bin="/bin")
  assert done.returncode == 2
  assert "launch/tpu_pod.sh run" in done.stderr


@pytest.mark.parametrize(("code", "requeued"), [(0, False), (75, True), (1, False)])
def test_slurm_queues_again_what_sigterm_stopped(tool, tmp_path, code, requeued):
  srun = tool("srun", f"exit {code}")
  scontrol = tool("scontrol", "")
  activate = tmp_path / "venv" / "bin" / "activate"
  activate.parent.mkdir(parents=True)
  activate.touch()
  done = script(
    "slurm.sbatch",
    bin=tmp_path / "bin",
    ENVIRONMENT=str(tmp_path / "venv"),
    SLURM_JOB_ID="7",
  )
  assert done.returncode == code, done.stderr
  assert "maskjax train --distributed --config" in srun.read_text()
  assert (scontrol.exists() and "requeue 7" in scontrol.read_text()) == requeued


def test_distributed_without_a_cluster_environment(tmp_path):
  command = ("train", "--config", DIGITS, "--workdir", tmp_path / "run", *TINY)
  line = check_refusal(*process(*command, "--distributed")[::2])
  assert "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID" in line
  assert not (tmp_path / "run").exists()
