"""A config whose step compiles in a second, for runs of several processes."""

from helpers.running import tiny_config


def get_config():
  config = tiny_config()
  config.num_steps = 300
  config.optimizer.learning_rate = 1e-3
  config.log_every = 1
  config.checkpoint.every = 1000
  config.objective = dict(name="worker:HalfMasked")
  return config
