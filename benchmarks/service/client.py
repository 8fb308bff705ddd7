"""A client that costs little: its messages are made beforehand, and it reads of an answer what HTTP needs."""

import asyncio
import re
from typing import NamedTuple

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class Response(NamedTuple):
    """A response: its status and its body."""

    status: int
    body: bytes


class Connection:
    """A connection that is kept open, and is opened again after it was closed."""

    def __init__(self, host: str, port: int):
        self.host, self.port = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, message: bytes) -> Response:
        """Send a message and return the response. Raises OSError or EOFError where the connection breaks."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(self.host, self.port, limit=2**20)
        reader, writer = self._streams
        try:
            writer.write(message)
            head = await reader.readuntil(b"\r\n\r\n")
            length = _LENGTH.search(head)
            body = await reader.readexactly(int(length[1])) if length else b""
        except (OSError, EOFError):
            self.close()
            raise
        if b"\r\nconnection: close" in head.lower():
            self.close()
        return Response(int(head[9:12]), body)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None
