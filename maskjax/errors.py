"""The errors that the command line prints as one line, without a traceback."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
  """Something in a config, a file or a command is not as expected.

  The message is one line that names the key, file or value and what was expected.
  The command line prints it without a traceback and exits with code 2; library
  callers catch it as a `ValueError`. Its one argument is the message, so that it can
  be pickled between data-loading processes.
  """

  def __init__(self, message: str):
    super().__init__(" ".join(message.split()))


def did_you_mean(word: str, choices: Iterable[str]) -> str:
  """Says which of `choices` is nearest to `word`, and what they all are.

  Example:
    >>> did_you_mean("rnadom", ["block", "random"])
    "did you mean 'random'? (there are: block, random)"
  """
  choices = sorted(choices)
  near = difflib.get_close_matches(word, choices, n=1)
  listed = f"there are: {', '.join(choices)}"
  return f"did you mean {near[0]!r}? ({listed})" if near else listed


def at_least_one(**counts: int) -> None:
  """Checks that counts are 1 or more.

  Args:
    **counts: by the names that the message uses.

  Raises:
    UserError: one is below 1; names it.

  Example:
    >>> at_least_one(depth=0)
    Traceback (most recent call last):
    maskjax.errors.UserError: depth=0: expected at least 1
  """
  for name, count in counts.items():
    if count < 1:
      raise UserError(f"{name}={count}: expected at least 1")


def positive(**numbers: float) -> None:
  """Checks that numbers are above 0.

  Args:
    **numbers: by the names that the message uses.

  Raises:
    UserError: one is 0 or below; names it.

  Example:
    >>> positive(temperature=0.0)
    Traceback (most recent call last):
    maskjax.errors.UserError: temperature=0.0: expected a number above 0
  """
  for name, number in numbers.items():
    if number <= 0:
      raise UserError(f"{name}={number}: expected a number above 0")


class RunError(RuntimeError):
  """A run had to stop although its config is correct.

  For example the loss is NaN, or the disk is full. The command line prints the message
  as one line without a traceback and exits with code 1.
  """

  def __init__(self, message: str):
    super().__init__(" ".join(message.split()))


class TerminatedError(RunError):
  """A run received SIGTERM, saved its state and stopped.

  The command line exits with code 75: the same command resumes the run.
  """


class RunWarning(UserWarning):
  """A run continues, but not in the way that its command suggests.

  The command line prints the message as one line, without file and line number.
  """


class RecordError(UserError):
  """A record of a data source could not be read or decoded."""
