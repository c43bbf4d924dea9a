"""Orbax on `s3://`, which it would know but for one function.

Its small files go through epath and its arrays through TensorStore, and both know
S3. The function between, which describes a folder to TensorStore, knows `gs://` and
takes all else for local: Orbax 0.12.8 refuses `s3://bucket/run` as a path that is not
absolute (google/orbax#2739 is the unmerged remedy). Here it learns the third case.
"""

import functools
from typing import Any

from orbax.checkpoint._src.serialization import tensorstore_utils

from maskjax import storage
from maskjax.errors import UserError


@functools.cache
def teach_orbax() -> None:
  """Lets Orbax describe `s3://` folders to TensorStore, from now on."""
  known = getattr(tensorstore_utils, "build_kvstore_tspec", None)
  if known is None:
    raise UserError("checkpoints on s3:// need orbax-checkpoint==0.12.8")

  @functools.wraps(known)
  def build(directory: str, *arguments: Any, **keywords: Any) -> dict[str, Any]:
    if not directory.startswith("s3://"):
      return known(directory, *arguments, **keywords)
    s3 = storage.kvstore(directory)
    del s3["path"]  # below it is that of the parameter, or of a process's folder
    spec = known(f"gs://{directory[5:]}", *arguments, **keywords)
    if spec["driver"] == "gcs":
      return {**spec, **s3}
    return {**spec, "base": {**spec["base"], **s3}}

  tensorstore_utils.build_kvstore_tspec = build
