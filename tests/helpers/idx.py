"""Files of the format in which MNIST and Fashion-MNIST come."""

import gzip
import struct
from pathlib import Path

import numpy as np


def write_idx(path: Path, array: np.ndarray) -> bytes:
  header = struct.pack(f">I{array.ndim}I", 0x0800 + array.ndim, *array.shape)
  data = header + array.astype(np.uint8).tobytes()
  path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
  return data
