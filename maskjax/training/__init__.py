"""One state, one step, one loop."""

from maskjax.training.loop import fit
from maskjax.training.optimizers import adamw
from maskjax.training.step import TrainState, init_state, program, train_step

__all__ = ["TrainState", "adamw", "fit", "init_state", "program", "train_step"]
