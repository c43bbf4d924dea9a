"""A run's config names the network that is evaluated and handed on."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from maskjax import networks
from maskjax.errors import UserError
from maskjax.losses import Loss, Mean
from maskjax.objectives import Variables
from maskjax.training import TrainState
from maskjax.training.checkpoints import Checkpoints


@dataclasses.dataclass(frozen=True)
class Student:
  """Has an average of its encoder, but not of its head."""

  def init(self, key, batch):
    """See `Objective`."""

  def loss(self, variables, batch, step):
    return Loss.of(Mean.of(variables.params["head"]))

  def teacher_variables(self, variables):
    params, extra = variables
    return Variables({**params, **extra["teacher"]}, extra)


class Alone:
  """Has none."""

  def init(self, key, batch):
    """See `Objective`."""

  def loss(self, variables, batch, step):
    """See `Objective`."""


def config_of(network, ema_decay=0.0):
  return ConfigDict({"eval": {"network": network}, "ema_decay": ema_decay})


def state(*, ema=False):
  params = {"encoder": jnp.full(2, 1.0), "head": jnp.full(2, 2.0)}
  return TrainState(
    step=jnp.int32(3),
    params=params,
    extra={"teacher": {"encoder": jnp.full(2, 3.0)}},
    opt_state=(),
    ema={"encoder": jnp.full(2, 4.0), "head": jnp.full(2, 5.0)} if ema else None,
  )


CASES = [
  ("", False, (1, 2)),
  ("", True, (4, 5)),
  ("student", True, (1, 2)),
  ("averaged", True, (4, 5)),
  ("teacher", True, (3, 2)),
]


def values(params):
  return tuple(float(np.asarray(params[name])[0]) for name in ("encoder", "head"))


@pytest.mark.parametrize(("network", "ema", "expected"), CASES)
def test_the_network_of_a_state(network, ema, expected):
  found = networks.of_state(config_of(network), Student(), state(ema=ema))
  assert values(found.params) == expected
  assert found.extra.keys() == {"teacher"}


@pytest.mark.parametrize(("network", "ema", "expected"), CASES)
def test_the_network_of_a_checkpoint(tmp_path, network, ema, expected):
  checkpoints = Checkpoints(tmp_path / "checkpoints")
  checkpoints.save(3, state(ema=ema), {})
  checkpoints.wait()
  step, params = networks.stored(config_of(network), Student(), checkpoints)
  checkpoints.close()
  assert (step, values(params)) == (3, expected)


def test_a_checkpoint_without_an_average_has_none(tmp_path):
  checkpoints = Checkpoints(tmp_path / "checkpoints")
  checkpoints.save(3, state(), {})
  checkpoints.wait()
  with pytest.raises(UserError, match="has no 'ema': expected one of: params"):
    networks.stored(config_of("averaged", 0.9), Student(), checkpoints)
  checkpoints.close()


@pytest.mark.parametrize(
  ("config", "objective", "complaint"),
  [
    (config_of("techer"), Student(), "config.eval.network='techer': did you mean"),
    (config_of("averaged"), Student(), "expected config.ema_decay above 0"),
    (config_of("teacher"), Alone(), "Alone has no teacher_variables: expected an"),
  ],
)
def test_a_network_that_a_run_will_not_have(config, objective, complaint):
  with pytest.raises(UserError, match=complaint) as caught:
    networks.check(config, objective)
  assert "\n" not in str(caught.value)


def test_configs_of_older_runs_name_none():
  networks.check(ConfigDict({"eval": {}, "ema_decay": 0.0}), Alone())
