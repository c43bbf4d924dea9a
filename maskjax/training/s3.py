"""Support for `s3://` in Orbax, which lacks it in one function.

Orbax writes small files with epath and arrays with TensorStore, and both support S3.
The function that makes TensorStore's specification of a folder supports `gs://` and
local paths only: Orbax 0.12.8 rejects `s3://bucket/run` as a path that is not absolute
(google/orbax#2739 is an unmerged fix). Here that function is extended.
"""

import functools
from typing import Any

from orbax.checkpoint._src.serialization import tensorstore_utils

from maskjax import storage
from maskjax.errors import UserError


@functools.cache
def extend_orbax() -> None:
  """Makes Orbax accept `s3://` folders, for the rest of the process.

  Raises:
    UserError: the installed Orbax does not have the function that is extended.
  """
  original = getattr(tensorstore_utils, "build_kvstore_tspec", None)
  if original is None:
    raise UserError(
      "checkpoints on s3://: expected orbax-checkpoint==0.12.8, the installed version "
      "lacks tensorstore_utils.build_kvstore_tspec"
    )

  @functools.wraps(original)
  def build(directory: str, *arguments: Any, **keywords: Any) -> dict[str, Any]:
    if not directory.startswith("s3://"):
      return original(directory, *arguments, **keywords)
    s3 = storage.kvstore(directory)
    del s3["path"]  # the path in `spec` is that of a parameter, or a process's folder
    spec = original(f"gs://{directory[5:]}", *arguments, **keywords)
    if spec["driver"] == "gcs":
      return {**spec, **s3}
    return {**spec, "base": {**spec["base"], **s3}}

  tensorstore_utils.build_kvstore_tspec = build
