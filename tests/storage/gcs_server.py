"""Google Cloud Storage's emulator from PyPI, as a process that may be killed.

`python gcs_server.py PORT FOLDER`. The emulator keeps buckets and objects in FOLDER.
It lacks what checkpoints and leases rely on, which is added here: writes on condition
of a generation, the generation of what is read, and an index that survives SIGKILL.
"""

import functools
import http.server
import os
import re
import shutil
import sys
import threading
from urllib.parse import parse_qs, unquote, urlsplit

from gcp_storage_emulator import server
from gcp_storage_emulator.storage import Storage

OBJECT = re.compile(r"(?:/download)?/storage/v1/b/([^/]+)/o/([^/]+)$")
UPLOAD = re.compile(r"/upload/storage/v1/b/([^/]+)/o$")
LOCK = threading.Lock()


class SafeStorage(Storage):
  """Keeps its index whole while it is replaced."""

  def _write_config_to_file(self):
    folder = os.path.join(self._data_dir, ".cloudstorage")
    super()._write_config_to_file()
    os.replace(f"{folder}/.meta", f"{folder}/.whole")

  def _read_config_from_file(self):
    folder = os.path.join(self._data_dir, ".cloudstorage")
    if os.path.exists(f"{folder}/.whole"):
      shutil.copyfile(f"{folder}/.whole", f"{folder}/.meta")
    super()._read_config_from_file()


class Handler(server.RequestHandler):
  """Adds the generations."""

  def _generation(self):
    """Of the object that the request is about; None where it is about none."""
    url = urlsplit(self.path)
    if match := OBJECT.match(url.path):
      bucket, name = match[1], unquote(match[2])
    elif (match := UPLOAD.match(url.path)) and "name" in (query := parse_qs(url.query)):
      bucket, name = match[1], query["name"][0]
    else:
      return None
    found = self.storage.objects.get(bucket, {}).get(name)
    return found["generation"] if found else "0"

  def _checked(self, handle):
    with LOCK:
      wanted = parse_qs(urlsplit(self.path).query).get("ifGenerationMatch")
      if wanted and self._generation() not in (None, wanted[0]):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(412)
        self.send_header("Content-Length", "0")
        http.server.BaseHTTPRequestHandler.end_headers(self)
      else:
        handle()

  def do_GET(self):  # noqa: N802
    self._checked(super().do_GET)

  def do_POST(self):  # noqa: N802
    self._checked(super().do_POST)

  def do_PUT(self):  # noqa: N802
    self._checked(super().do_PUT)

  def do_DELETE(self):  # noqa: N802
    self._checked(super().do_DELETE)

  def end_headers(self):
    generation = self._generation() if self.command == "GET" else None
    if generation:
      self.send_header("x-goog-generation", generation)
    super().end_headers()


if __name__ == "__main__":
  address = ("127.0.0.1", int(sys.argv[1]))
  storage = SafeStorage(data_dir=sys.argv[2])
  handler = functools.partial(Handler, storage)
  http.server.ThreadingHTTPServer(address, handler).serve_forever()
