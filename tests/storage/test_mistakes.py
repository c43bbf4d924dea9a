"""What cannot be reached is reported in one line, and soon."""

import re
import time

import fsspec
import pytest
from helpers.running import DIGITS, TINY, check_refusal

from maskjax.storage import paths


@pytest.fixture
def refused(store, call):
  """Runs all commands on a workdir; gives their only lines."""
  for scheme in ("gs", "s3"):
    fsspec.get_filesystem_class(scheme).clear_instance_cache()

  def run(workdir):
    lines = []
    for command in (
      ("train", "--config", DIGITS, *TINY, "--workdir", workdir),
      ("eval", "--workdir", workdir),
      ("convert", "--workdir", workdir, "--to_hf", "nowhere"),
    ):
      start = time.monotonic()
      code, _, err = call(*command)
      assert time.monotonic() - start < 20
      lines.append(check_refusal(code, err))
    return lines

  yield run
  for scheme in ("gs", "s3"):
    fsspec.get_filesystem_class(scheme).clear_instance_cache()


def test_wrong_bucket(store, refused):
  for line in refused(f"{store.scheme}://nowhere/run"):
    assert "nowhere/run: there is no bucket 'nowhere'" in line


def test_no_answer(store, refused, monkeypatch):
  monkeypatch.setattr(paths, "PATIENCE", 1.0)
  store.proxy.down()
  try:
    for line in refused(store.root):
      assert f"{store.root}: no answer within 1 seconds" in line
  finally:
    store.proxy.up()


def test_no_permission(store, refused):
  store.proxy.deny()
  try:
    for line in refused(store.root):
      assert re.search(f"{store.root} cannot be reached: .*(403|[Ff]orbidden)", line)
  finally:
    store.proxy.down()
    store.proxy.up()


def test_no_credentials(store, refused, monkeypatch):
  if store.scheme == "gs":
    pytest.skip("without credentials gs:// is asked anonymously: no permission, then")
  for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
    monkeypatch.delenv(name)
  for line in refused(store.root):
    assert f"{store.root} cannot be reached: Unable to locate credentials" in line
