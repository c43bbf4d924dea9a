"""Whether features have collapsed."""

import numpy as np


def effective_rank(features: np.ndarray, *, of: str = "covariance") -> float:
  """How many directions features vary in, as the exponential of an entropy.

  The entropy is that of the singular values' shares of their sum
  (https://ieeexplore.ieee.org/document/7098875). Those of the covariance are the
  squares of those of the features, whose rank https://arxiv.org/abs/2210.02885 takes;
  the first is the smaller one.

  Args:
    features: float [E, D]; their mean is taken off.
    of: `covariance` or `features`.

  Returns:
    From 1, all on a line, to D.

  Example:
    >>> x = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> round(effective_rank(x), 3), round(effective_rank(x * [1, 0.1]), 3)
    (2.0, 1.057)
  """
  centered = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
  values = np.clip(np.linalg.eigvalsh(centered.T @ centered), 0, None)
  values = values if of == "covariance" else np.sqrt(values)
  shares = values[values > 0] / values.sum()
  return float(np.exp(-(shares * np.log(shares)).sum()))
