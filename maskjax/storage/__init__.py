"""Files on object storage, `gs://bucket/...` or `s3://bucket/...`, and on disk."""

from maskjax.storage.cache import local_copy
from maskjax.storage.lease import Lease
from maskjax.storage.mirror import Mirror, mirror
from maskjax.storage.paths import (
  brief,
  checksums,
  errors,
  exists,
  files,
  is_remote,
  kvstore,
  matching,
  move,
  path,
  reach,
  read_bytes,
)

__all__ = [
  "Lease",
  "Mirror",
  "brief",
  "checksums",
  "errors",
  "exists",
  "files",
  "is_remote",
  "kvstore",
  "local_copy",
  "matching",
  "mirror",
  "move",
  "path",
  "reach",
  "read_bytes",
]
