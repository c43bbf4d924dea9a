"""A connection to a server on loopback that can be watched, cut, and made again."""

import asyncio
import contextlib
import re
import threading

FORBIDDEN = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Proxy:
  """Passes bytes on, unless it is down.

  Args:
    target: the server's port.
  """

  def __init__(self, target: int):
    self.port = 0
    self._target = target
    self._wanted = re.compile(b"(?!)")
    self._seen = threading.Event()
    self._writers: set[asyncio.StreamWriter] = set()
    self._loop = asyncio.new_event_loop()
    self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
    self._thread.start()
    self.up()

  def watch(self, wanted: bytes) -> threading.Event:
    """What will be set when a request matches this pattern."""
    self._wanted = re.compile(wanted)
    self._seen = threading.Event()
    return self._seen

  def up(self) -> None:
    """Takes connections."""
    self._denies = False
    self._do(self._listen())

  def down(self) -> None:
    """Cuts all connections, and refuses new ones."""
    self._do(self._cut())

  def deny(self) -> None:
    """Answers all requests that they are forbidden."""
    self.down()
    self.up()
    self._denies = True

  def close(self) -> None:
    """Ends."""
    self.down()
    self._loop.call_soon_threadsafe(self._loop.stop)
    self._thread.join()
    self._loop.close()

  def _do(self, coroutine) -> None:
    asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

  async def _listen(self) -> None:
    self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
    self.port = self._server.sockets[0].getsockname()[1]

  async def _cut(self) -> None:
    self._server.close()
    for writer in list(self._writers):
      writer.transport.abort()
    while self._writers:
      await asyncio.sleep(0.01)

  async def _serve(self, reader, writer) -> None:
    pair = {writer}
    self._writers.add(writer)
    try:
      if self._denies:
        with contextlib.suppress(TimeoutError):
          while await asyncio.wait_for(reader.read(1 << 16), 0.2):
            pass
        writer.write(FORBIDDEN)
        return
      far = await asyncio.open_connection("127.0.0.1", self._target)
      pair.add(far[1])
      self._writers.add(far[1])
      await asyncio.gather(
        self._pass(reader, far[1], watched=True), self._pass(far[0], writer)
      )
    except OSError:
      pass  # the server is down
    finally:
      for each in pair:
        each.close()
        with contextlib.suppress(OSError):
          await each.wait_closed()
      self._writers -= pair

  async def _pass(self, reader, writer, *, watched: bool = False) -> None:
    while data := await reader.read(1 << 16):
      if watched and self._wanted.search(data):
        self._seen.set()
      writer.write(data)
      await writer.drain()
    if writer.can_write_eof():
      writer.write_eof()
