"""libtpu on a machine without a TPU.

It is installed there for `maskjax plan`, and JAX loads it in every run to look for
chips. Left alone it complains about the pod that it is not on.
"""

import os


def settle() -> None:
  """Answers what libtpu would ask of a TPU's host, where there is none.

  Changes environment variables that libtpu alone reads, before it is loaded; does
  nothing where JAX has found a chip.
  """
  # JAX sets this as it is imported, if it finds no chip.
  if os.environ.get("TPU_SKIP_MDS_QUERY") != "1":
    return
  os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5p-8")
  os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
  # There is no chip to keep for one process.
  os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
