"""libtpu on a machine without a TPU, where it is installed for `maskjax plan`."""

import importlib.metadata
import importlib.util
import os

import jax


def settle() -> None:
  """Keeps libtpu quiet where JAX has found no TPU; to be called before any work.

  JAX would load it in every run to look for chips. It then complains about the pod
  that it is not on, and takes the signals over with which a run is stopped.
  """
  # JAX sets this as it is imported, if it finds no chip.
  if os.environ.get("TPU_SKIP_MDS_QUERY") != "1":
    return
  # What libtpu asks of a TPU's host, for plans and for machines with other chips.
  os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5p-8")
  os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
  # There is no chip to keep for one process.
  os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
  others = importlib.metadata.entry_points(group="jax_plugins")
  if importlib.util.find_spec("jax_plugins") is None and not others:
    if jax.config.values["jax_platforms"] is None:
      jax.config.update("jax_platforms", "cpu")
