"""MFM: masked frequency modeling for self-supervised visual pre-training."""

from maskjax.systems.image.mfm.objective import SYSTEM, Mfm, mfm

__all__ = ["SYSTEM", "Mfm", "mfm"]
