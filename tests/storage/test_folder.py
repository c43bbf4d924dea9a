"""One run at a time writes to a folder, and what it writes arrives."""

import os
import re
import time

import pytest

from maskjax import storage
from maskjax.errors import RunError, UserError
from maskjax.storage import lease, paths

SECONDS = 1.5


def wait_until(due, seconds=20):
  until = time.monotonic() + seconds
  while not due():
    assert time.monotonic() < until
    time.sleep(0.02)


def left_behind(root):
  """A lease whose holder was killed."""
  held = lease.Lease(storage.path(root), seconds=SECONDS)
  held._stop.set()
  held._thread.join()
  return held


def test_lease_that_is_held_is_refused(store, capsys):
  root = storage.path(store.root)
  held = lease.Lease(root, seconds=SECONDS)
  mine = f"process {os.getpid()} on "
  with pytest.raises(UserError, match=f"{root} is in use by {mine}"):
    lease.Lease(root, seconds=SECONDS)
  assert re.fullmatch(
    f"workdir .* waiting up to .* {mine}.*\n", capsys.readouterr().out
  )
  held.check()
  held.release()
  assert storage.files(store.root) == []
  start = time.monotonic()
  lease.Lease(root, seconds=60).release()
  assert time.monotonic() - start < 10  # nothing to wait for


def test_lease_that_has_run_out_is_taken_over(store):
  old = left_behind(store.root)
  start = time.monotonic()
  new = lease.Lease(storage.path(store.root), seconds=SECONDS)
  assert time.monotonic() - start >= SECONDS
  old._renew()  # back from a long sleep, its holder finds out
  with pytest.raises(RunError, match=f"taken over by process {os.getpid()}"):
    old.check()
  old.release()  # which must not release the new one
  assert storage.files(store.root) == [lease.NAME]
  new._renew()
  new.check()
  new.release()


def test_lease_of_two_that_wait_goes_to_one(store, monkeypatch):
  left_behind(store.root)
  taken = []

  def write(self, if_equal, original=lease.Lease._write):
    if not taken:  # another run is faster, after this one has seen it run out
      taken.append(True)
      taken.append(lease.Lease(storage.path(store.root), seconds=SECONDS))
    return original(self, if_equal)

  monkeypatch.setattr(lease.Lease, "_write", write)
  with pytest.raises(UserError, match="in use by process"):
    lease.Lease(storage.path(store.root), seconds=SECONDS)
  taken[1].check()
  taken[1].release()


def test_lease_outlives_an_outage(store):
  held = lease.Lease(storage.path(store.root), seconds=SECONDS)
  store.kill()
  time.sleep(SECONDS)
  store.start()
  before = held._renewals
  wait_until(lambda: held._renewals > before + 1)
  held.check()
  held.release()


def test_mirror(store):
  root = storage.path(store.root)
  (root / "grown.txt").write_text("one\n")
  with storage.mirror(root, grown=["grown.txt", "new.txt"]) as mirror:
    seen = store.proxy.watch(b"(POST|PUT) .*grown.txt")
    mirror.flush()
    assert not seen.is_set()  # another host may have written to it since
    with (mirror.folder / "grown.txt").open("a") as file:
      file.write("two\n")
    mirror.flush()
    assert store.read("grown.txt") == b"one\ntwo\n"
    (mirror.folder / "deep").mkdir()
    (mirror.folder / "deep" / "new.txt").write_text("three")
  assert store.read("deep/new.txt") == b"three"
  assert not mirror.folder.exists()


def test_mirror_copies_by_itself_what_has_changed(store):
  mirror = storage.Mirror(storage.path(store.root), every=0.05)
  (mirror.folder / "a.txt").write_text("a")
  wait_until(lambda: storage.files(store.root) == ["a.txt"])
  seen = store.proxy.watch(b"a.txt")
  mirror.flush()
  assert not seen.is_set()  # it has not changed
  mirror.close()


def test_local_folder_is_its_own_mirror(tmp_path):
  with storage.mirror(storage.path(tmp_path)) as mirror:
    assert mirror.folder == tmp_path
    mirror.flush()


def test_mistakes(store, monkeypatch):
  scheme = store.scheme
  assert storage.reach(store.root) == storage.path(store.root)
  with pytest.raises(UserError, match=f"{scheme}://nowhere/run: there is no bucket"):
    storage.reach(f"{scheme}://nowhere/run")
  with pytest.raises(UserError, match=r"expected a local path, gs://bucket/folder or"):
    storage.path("http://tests/run")
  with pytest.raises(UserError, match=r"expected a local path, gs://bucket/folder or"):
    storage.path(f"{scheme}://")
  monkeypatch.setattr(paths, "_is_installed", lambda package: False)
  extra = {"gs": "gcs", "s3": "s3"}[scheme]
  with pytest.raises(UserError, match=rf"pip install 'maskjax\[{extra}\]'"):
    storage.path(store.root)
