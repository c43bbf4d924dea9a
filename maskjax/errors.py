"""The one exception for mistakes that the user can mend."""


class UserError(ValueError):
  """Something in a config, a file or a command is not as expected.

  The message is one line that names the key, file or value and says what was
  expected. The command line prints it without a traceback and exits with
  code 2; library callers catch it as a `ValueError`. It takes the message
  alone, so that it survives the pickling between data-loading processes.
  """

  def __init__(self, message: str):
    super().__init__(" ".join(message.split()))


def at_least_one(**counts: int) -> None:
  """Refuses a count below 1, by its name.

  Example:
    >>> at_least_one(depth=0)
    Traceback (most recent call last):
    maskjax.errors.UserError: depth=0: expected at least 1
  """
  for name, count in counts.items():
    if count < 1:
      raise UserError(f"{name}={count}: expected at least 1")


def positive(**numbers: float) -> None:
  """Refuses a number that is not above 0, by its name.

  Example:
    >>> positive(temperature=0.0)
    Traceback (most recent call last):
    maskjax.errors.UserError: temperature=0.0: expected a number above 0
  """
  for name, number in numbers.items():
    if number <= 0:
      raise UserError(f"{name}={number}: expected a number above 0")


class RunError(RuntimeError):
  """A run had to stop, through nobody's mistake in writing its config.

  A loss that is no number, a disk that is full. The command line prints the one
  line without a traceback and exits with code 1.
  """

  def __init__(self, message: str):
    super().__init__(" ".join(message.split()))


class TerminatedError(RunError):
  """A run was told to stop by SIGTERM, and has saved its state.

  The command line exits with code 75, which asks whoever started it to do so again.
  """


class RunWarning(UserWarning):
  """A run goes on, but not as one would think.

  The command line prints the one line, without the place in the code.
  """


class RecordError(UserError):
  """A record of a data source could not be read or decoded."""
