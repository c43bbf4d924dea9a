"""What an objective offers is found out once, and half of an ability is refused."""

import pytest

from maskjax import systems
from maskjax.errors import UserError
from maskjax.objectives import abilities_of


class Plain:
  """An objective that offers nothing but what it must."""

  def init(self, key, batch):
    """See `Objective`."""

  def loss(self, variables, batch, step):
    """See `Objective`."""


def with_methods(**methods):
  return type("Custom", (Plain,), methods)()


def test_what_is_not_there_is_none():
  found = abilities_of(Plain())
  assert found.loss is not None
  assert found.features is found.update is found.targets is None
  assert found.pretrained == {}


def test_evaluation_falls_back_on_the_loss():
  plain = Plain()
  assert abilities_of(plain).evaluate == plain.loss
  custom = with_methods(evaluate=lambda self, variables, batch, step: 1)
  assert abilities_of(custom).evaluate(None, None, None) == 1


def test_a_system_offers_what_it_has():
  found = abilities_of(systems.mae(encoder="Ti"))
  assert None not in (found.features, found.layers, found.targets, found.reconstruct)
  assert found.predict is found.embed is found.update is None


@pytest.mark.parametrize(
  ("methods", "complaint"),
  [
    (
      dict(loss=lambda self, params, extra, batch, key: 0),
      r"Custom.loss\(params, extra, batch, key\) .*: "
      r"expected loss\(variables, batch, step\)",
    ),
    (
      dict(features=lambda self, params, batch: 0),
      r"Custom.features\(params, batch\) .*: expected features\(variables, batch\)",
    ),
    (
      dict(update=lambda self, variables: 0),
      r"expected update\(variables, batch, step, sums\)",
    ),
    (dict(targets=lambda self, batch: 0), "Custom has targets, but no mask: expected"),
    (dict(codes=lambda self, variables, batch: 0), "has codes, but no grid"),
    (dict(features=3), "Custom.features is of type int: expected a method features"),
    (dict(init=None), r"Custom has no init: expected init\(key, batch\)"),
  ],
)
def test_half_an_ability_is_refused_in_one_line(methods, complaint):
  with pytest.raises(UserError, match=complaint) as caught:
    abilities_of(with_methods(**methods))
  assert "\n" not in str(caught.value)


def test_parameters_that_are_not_used_may_have_any_name():
  custom = with_methods(features=lambda self, _variables, _: 0)
  assert abilities_of(custom).features is not None
