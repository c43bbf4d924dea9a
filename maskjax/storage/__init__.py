"""Object storage: `gs://bucket/...` and `s3://bucket/...` beside local paths."""

from maskjax.storage.cache import local_copy
from maskjax.storage.mirror import Mirror, mirror
from maskjax.storage.paths import (
  brief,
  errors,
  files,
  is_remote,
  kvstore,
  matching,
  path,
  reach,
  read_bytes,
)

__all__ = [
  "Mirror",
  "brief",
  "errors",
  "files",
  "is_remote",
  "kvstore",
  "local_copy",
  "matching",
  "mirror",
  "path",
  "reach",
  "read_bytes",
]
