"""Messages both ways over a socket pair, many under way at once, some with a file descriptor.

Both ends use it, each on its event loop. Messages are JSON, never pickle; a page's pixels travel
as the descriptor of the memory that they lie in.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
from collections import deque
from collections.abc import Callable

from dsocr_batch.child import Message, encode

_HEAD = struct.Struct(">?I")
"""Whether a descriptor comes with the message; then the length of the JSON."""
_MAX_MESSAGE_BYTES = 64 << 20
_READ_BYTES = 1 << 16
_MAX_FDS_AT_ONCE = 16


class Channel:
    """One end. Make and use it on a running event loop."""

    def __init__(
        self,
        sock: socket.socket,
        *,
        on_message: Callable[[Message, int | None], None],
        on_lost: Callable[[], None],
    ) -> None:
        """Begin to listen.

        Args:
            sock: one of a pair of stream sockets; the channel closes it.
            on_message: called with each message; the descriptor that came with it is the
                callee's to close.
            on_lost: called once if the other end is gone or talks nonsense; never after ``close``.
        """
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._on_message = on_message
        self._on_lost = on_lost
        self._unsent: deque[tuple[bytes, int | None]] = deque()
        self._received = bytearray()
        self._received_fds: deque[int] = deque()
        sock.setblocking(False)  # noqa: FBT003 (its only parameter)
        self._loop.add_reader(sock, self._read)

    def send(self, message: Message, fd: int | None = None) -> None:
        """Send a message as soon as the other end takes it; never waits.

        The descriptor may be closed afterwards. A message to an end that is gone is dropped:
        ``on_lost`` tells.
        """
        if self._sock.fileno() < 0:
            return
        was_empty = not self._unsent
        head = b"\1" if fd is not None else b"\0"
        self._unsent.append((head + encode(message), None if fd is None else os.dup(fd)))
        if was_empty:
            self._write()

    def close(self) -> None:
        """Drop what is unsent and unread; harmless when repeated."""
        if self._sock.fileno() < 0:
            return
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        for fd in [*self._received_fds, *(fd for _, fd in self._unsent if fd is not None)]:
            os.close(fd)
        self._received_fds.clear()
        self._unsent.clear()

    def _lose(self) -> None:
        if self._sock.fileno() >= 0:
            self.close()
            self._on_lost()

    def _write(self) -> None:
        while self._unsent:
            data, fd = self._unsent[0]
            try:
                sent = self._send(data, fd)
            except BlockingIOError:
                self._loop.add_writer(self._sock, self._write)
                return
            except OSError:
                self._lose()
                return
            if fd is not None:
                os.close(fd)
            if sent < len(data):
                self._unsent[0] = (data[sent:], None)
            else:
                self._unsent.popleft()
        self._loop.remove_writer(self._sock)

    def _send(self, data: bytes, fd: int | None) -> int:
        # A descriptor travels with the first byte of its message, so they arrive in order.
        return self._sock.send(data) if fd is None else socket.send_fds(self._sock, [data], [fd])

    def _read(self) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(
                self._sock, _READ_BYTES, _MAX_FDS_AT_ONCE, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError:
            self._lose()
            return
        self._received_fds.extend(fds)
        self._received += data
        try:
            while self._sock.fileno() >= 0 and (taken := self._take()) is not None:
                self._on_message(*taken)
        except _ProtocolError:
            data = b""
        if not data:
            self._lose()

    def _take(self) -> tuple[Message, int | None] | None:
        """Return the next message if it is there to its end."""
        if len(self._received) < _HEAD.size:
            return None
        has_fd, length = _HEAD.unpack_from(self._received)
        end = _HEAD.size + length
        if length > _MAX_MESSAGE_BYTES or (has_fd and not self._received_fds):
            raise _ProtocolError
        if len(self._received) < end:
            return None
        try:
            message: Message = json.loads(self._received[_HEAD.size : end])
        except ValueError as error:
            raise _ProtocolError from error
        del self._received[:end]
        return message, self._received_fds.popleft() if has_fd else None


class _ProtocolError(Exception):
    """The other end does not speak our protocol."""
