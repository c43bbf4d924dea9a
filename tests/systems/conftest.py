"""Tests of systems compile much and compute little."""

import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def quick_compiler():
  """Compiles in two thirds of the time what then runs a little slower."""
  jax.config.update("jax_disable_most_optimizations", True)
  yield
  jax.config.update("jax_disable_most_optimizations", False)
