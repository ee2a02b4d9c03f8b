"""A child process that answers one JSON request at a time, and cannot outlive its parent.

Render workers and CPU engines share it. The two talk over a socket pair in length-prefixed
JSON, never pickle: a child that parses hostile files must not be able to run code in the
parent. Pixels do not travel here but through shared memory whose descriptors the child
inherits. The child sits in a process group of its own, so Ctrl-C reaches the parent alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

from dsocr_batch.names import display_text

Message = dict[str, Any]
Handler = Callable[[Message], Message]

_LENGTH = struct.Struct(">I")
_MAX_MESSAGE_BYTES = 64 << 20
_MAX_STDERR_BYTES = 1 << 20
_FAREWELL_S = 2.0
_BUSY_SHARE = 0.2  # of its time; a stopped child has 0
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class ChildDiedError(Exception):
    """The child could not be started, exited, or broke the protocol before it answered."""

    def __init__(self, message: str, *, from_outside: bool) -> None:
        super().__init__(message)
        self.from_outside = from_outside
        """True if its work was not the cause: the out-of-memory killer or a person sent SIGKILL,
        or the system had no room to start it."""


class ChildTimeoutError(Exception):
    """The child did not answer in time and was killed."""

    def __init__(self, message: str, *, was_busy: bool) -> None:
        super().__init__(message)
        self.was_busy = was_busy
        """True if it spent the time computing; False if it was stopped, or waited for a disk."""


class ChildProcess:
    """The parent's end. Use from one event loop; one call at a time."""

    def __init__(
        self, process: subprocess.Popen[bytes], sock: socket.socket, stderr: IO[bytes]
    ) -> None:
        self._process = process
        self._sock = sock
        self._stderr = stderr
        self._ending = ""
        self._killed_by_us = False

    @classmethod
    def spawn(
        cls,
        module: str,
        *,
        memory_bytes: int | None = None,
        pass_fds: Sequence[int] = (),
        env: dict[str, str] | None = None,
    ) -> ChildProcess:
        """Start ``python -m module``, which must call ``serve``; returns without waiting.

        Raises:
            ChildDiedError: the system cannot start a process now.

        Call it from the main thread: Linux ends the child when the thread that made it ends.

        Args:
            module: importable name of the child's module.
            memory_bytes: address-space limit (Linux; macOS has none that holds).
            pass_fds: descriptors that the child inherits under the same numbers.
            env: added to this process's environment.
        """
        try:
            return cls._spawn(module, memory_bytes or 0, pass_fds, env or {})
        except OSError as error:
            raise ChildDiedError(f"cannot be started: {error}", from_outside=True) from error

    @classmethod
    def _spawn(
        cls, module: str, memory_bytes: int, pass_fds: Sequence[int], env: dict[str, str]
    ) -> ChildProcess:
        stderr = tempfile.TemporaryFile(mode="ab+")  # noqa: SIM115 (lives as long as the child)
        process, sock = start_module(
            module, str(memory_bytes), output=(None, stderr), pass_fds=pass_fds, env=env
        )
        return cls(process, sock, stderr)

    @property
    def pid(self) -> int:
        """Process id, for logs and for tests that kill it."""
        return self._process.pid

    async def call(self, message: Message, *, timeout_s: float) -> Message:
        """Send a request and return the reply.

        The child is killed if it does not answer in time, dies, or the call is cancelled:
        its state is unknown then, so it is never used again.

        Raises:
            ChildTimeoutError: no reply within ``timeout_s`` seconds.
            ChildDiedError: the child is gone; the message says how it ended.
        """
        loop = asyncio.get_running_loop()
        busy_s_before = self._busy_s()
        try:
            async with asyncio.timeout(timeout_s):
                await loop.sock_sendall(self._sock, encode(message))
                (length,) = _LENGTH.unpack(await self._receive(_LENGTH.size))
                if length > _MAX_MESSAGE_BYTES:
                    raise ValueError(f"a reply of {length} bytes is announced")
                reply: Message = json.loads(await self._receive(length))
        except TimeoutError as error:
            was_busy = self._busy_s() - busy_s_before > _BUSY_SHARE * timeout_s
            await self.close()
            raise ChildTimeoutError(
                f"no answer within {timeout_s:g} s", was_busy=was_busy
            ) from error
        except (OSError, ValueError) as error:
            # Its socket closes before it is gone; how it ends is worth a moment's wait.
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(self._process.wait, _FAREWELL_S)
            await self.close()
            from_outside = self._process.returncode == -signal.SIGKILL and not self._killed_by_us
            raise ChildDiedError(self._ending, from_outside=from_outside) from error
        except BaseException:
            await self.close()
            raise
        self._bound_stderr()
        return reply

    async def close(self) -> None:
        """Kill the child and wait until it is gone; harmless when repeated."""
        self._sock.close()
        if self._process.poll() is None:
            self._killed_by_us = True
            self._process.kill()
        # SIGKILL ends a process soon, but not at once if it is in the kernel.
        await asyncio.shield(asyncio.to_thread(self._process.wait))
        if not self._stderr.closed:
            self._ending = self._last_words()
            self._stderr.close()

    async def _receive(self, size: int) -> bytes:
        loop = asyncio.get_running_loop()
        chunks = bytearray()
        while len(chunks) < size:
            chunk = await loop.sock_recv(self._sock, size - len(chunks))
            if not chunk:
                raise ConnectionResetError("the child closed its socket")
            chunks += chunk
        return bytes(chunks)

    def _busy_s(self) -> float:
        """Return for how long the child has computed, or stood in line for a core.

        On a crowded machine a child that hangs computing may get a tenth of a core. Where the
        system does not tell of the waiting, it is what was computed; 0 where it tells nothing.
        """
        process = Path(f"/proc/{self._process.pid}")
        try:
            # Linux, Documentation/scheduler/sched-stats.rst: nanoseconds on a core, and waiting.
            on_core, in_line, *_ = (process / "schedstat").read_text().split()
            return (int(on_core) + int(in_line)) / 1e9
        except OSError:
            return self._cpu_s()

    def _cpu_s(self) -> float:
        try:
            stat = Path(f"/proc/{self._process.pid}/stat").read_text()
        except OSError:
            return 0.0
        # The name in field 2 may hold spaces; utime and stime are fields 14 and 15 (proc(5)).
        after_name = stat.rpartition(")")[2].split()
        return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")

    def _bound_stderr(self) -> None:
        if os.fstat(self._stderr.fileno()).st_size > _MAX_STDERR_BYTES:
            os.ftruncate(self._stderr.fileno(), 0)

    def _last_words(self) -> str:
        how = describe_end(self._process.returncode)
        size = os.fstat(self._stderr.fileno()).st_size
        tail = os.pread(self._stderr.fileno(), 2000, max(0, size - 2000))
        lines = tail.decode("utf-8", "replace").strip().splitlines()
        return f"{how}: {display_text(lines[-1])}" if lines else how


def describe_end(returncode: int | None) -> str:
    """Return how a process ended, in words."""
    if returncode is not None and returncode < 0:
        return f"killed by {signal.Signals(-returncode).name}"
    return f"exited with status {returncode}"


def start_module(
    module: str,
    *arguments: str,
    output: tuple[IO[bytes] | None, IO[bytes]],
    pass_fds: Sequence[int] = (),
    env: dict[str, str],
) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start ``python -m module`` in a process group of its own, tied to us by a socket pair.

    The module must call ``join_parent``.

    Args:
        module: importable name of the child's module.
        arguments: what the module finds in ``sys.argv`` after what ``join_parent`` takes.
        output: where its stdout (None: nowhere) and its stderr go.
        pass_fds: descriptors that the child inherits under the same numbers.
        env: added to this process's environment.

    Returns:
        The process, and our end of the pair, which does not block.

    Raises:
        OSError: the system cannot start a process now.
    """
    stdout, stderr = output
    ours, theirs = socket.socketpair()
    tie = [str(theirs.fileno()), str(os.getpid())]
    with theirs:
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-P", "-X", "faulthandler", "-m", module, *tie, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if stdout is None else stdout,
            stderr=stderr,
            pass_fds=(theirs.fileno(), *pass_fds),
            process_group=0,
            env={**os.environ, **env},
        )
    ours.setblocking(False)  # noqa: FBT003 (its only parameter)
    return process, ours


def join_parent() -> tuple[socket.socket, list[str]]:
    """Return the socket to the parent, and the arguments; runs first in the child.

    From then on the child ignores the signals that are meant for its parent, dies with it, and
    leaves no core file.
    """
    sock_fd, parent_pid = (int(argument) for argument in sys.argv[1:3])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the parent decides when to kill us
    die_with(parent_pid, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return socket.socket(fileno=sock_fd), sys.argv[3:]


def serve(handle: Handler) -> NoReturn:
    """Answer requests until the parent goes away; runs in the child as its main loop.

    ``handle`` returns the reply; an exception that it lets through ends the child, and the
    parent sees ``ChildDiedError``.
    """
    sock, (memory_bytes,) = join_parent()
    if int(memory_bytes) and sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (int(memory_bytes), int(memory_bytes)))
    with sock, sock.makefile("rb") as requests:
        while header := requests.read(_LENGTH.size):
            (length,) = _LENGTH.unpack(header)
            sock.sendall(encode(handle(json.loads(requests.read(length)))))
    sys.exit(0)


def die_with(parent_pid: int, by: signal.Signals) -> None:
    """Ask Linux to send this process a signal when its parent dies, however the parent dies.

    Elsewhere nothing does; a child that we talk to ends with its socket, as soon as it is idle.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, by)
        if os.getppid() != parent_pid:  # it died before the request took hold
            os.kill(os.getpid(), by)


def encode(message: Message) -> bytes:
    """Return a message as it travels: its length, then JSON."""
    # ASCII escapes carry the lone surrogates of file names that are not UTF-8.
    body = json.dumps(message, ensure_ascii=True, allow_nan=False).encode("ascii")
    return _LENGTH.pack(len(body)) + body
