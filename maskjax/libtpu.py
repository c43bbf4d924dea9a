"""libtpu on a machine without a TPU, where it is installed only for `maskjax plan`."""

import importlib.metadata
import importlib.util
import os

import jax


def settle() -> None:
  """Keeps JAX from loading libtpu where there is no TPU; call it before any JAX work.

  JAX would otherwise load libtpu in every run to look for chips. libtpu then logs
  errors about a missing pod, and replaces the handlers of the signals that stop a run.
  """
  # JAX sets this while it is imported, if it finds no chip.
  if os.environ.get("TPU_SKIP_MDS_QUERY") != "1":
    return
  # libtpu reads these on a TPU's host; a plan needs them on any other machine too.
  os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5p-8")
  os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
  # Without a chip, several processes may load it at once.
  os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
  others = importlib.metadata.entry_points(group="jax_plugins")
  if importlib.util.find_spec("jax_plugins") is None and not others:
    if jax.config.values["jax_platforms"] is None:
      jax.config.update("jax_platforms", "cpu")
