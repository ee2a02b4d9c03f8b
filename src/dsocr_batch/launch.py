"""Runs of one corpus side by side on one machine: a shard each, tended until they are done.

Each child is `dsocr-batch run` with its own shard, GPU and cores. One that dies is started
again and goes on where it stopped; the others never notice.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from dsocr_batch.child import die_with
from dsocr_batch.errors import EngineUnusable, ExitStatus, UsageError
from dsocr_batch.gpu import read_driver

log = logging.getLogger(__name__)

MAX_RESTARTS = 3
"""Of one shard, without a minute of work in between."""

STEADY_S = 60.0
FIRST_PAUSE_S = 1.0

_WORTH_A_RESTART = frozenset({ExitStatus.BUG, ExitStatus.ENGINE_UNUSABLE})
"""Beside deaths by a signal. The other statuses say that another try would end the same."""

_STOPPED = frozenset({ExitStatus.SIGTERM, -signal.SIGTERM})
"""How a child ends that was told to: in good order, or before it listened."""

_SEVERITY = (
    ExitStatus.OK,
    ExitStatus.STOPPED_BY_MAX_RUNTIME,
    ExitStatus.SOME_FAILED,
    ExitStatus.NO_INPUT,
    ExitStatus.SIGINT,
    ExitStatus.SIGTERM,
    ExitStatus.TOO_MANY_FAILURES,
    ExitStatus.ENGINE_UNUSABLE,
    ExitStatus.OUTPUT_NOT_WRITABLE,
    ExitStatus.USAGE,
    ExitStatus.BUG,
)
"""Exit statuses, the worst last. A shard that was given up after a signal counts as a bug."""

PARENT_VARIABLE = "DSOCR_LAUNCHER_PID"
_MAX_LINE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """Where one child runs."""

    name: str
    environment: Mapping[str, str]
    cores: frozenset[int]
    """Empty where a process cannot be bound to cores."""


@dataclass(slots=True, kw_only=True)
class Shard:
    """One child and its successors."""

    index: int
    seat: Seat
    pid: int | None = None
    restarts: int = 0
    status: ExitStatus | None = None
    """How it ended; None while it is at work."""
    given_up: bool = False
    _quick_deaths: int = field(default=0)

    def may_restart(self, lasted_s: float) -> bool:
        """Count a death and tell whether it is worth another try."""
        self._quick_deaths = 1 if lasted_s > STEADY_S else self._quick_deaths + 1
        return self._quick_deaths <= MAX_RESTARTS


def gpu_seats(gpus: str) -> list[Seat]:
    """Return a seat for each GPU that is meant by ``all`` or a list such as ``0,1,3``.

    Raises:
        UsageError: there is no such GPU.
        EngineUnusable: there is no NVIDIA driver.
    """
    try:
        count = len(read_driver().gpus)
    except EngineUnusable as error:
        raise EngineUnusable(
            f"{error}. Without GPUs, say how many runs there shall be: --workers N"
        ) from error
    if gpus == "all":
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(count))))
        names = [name.strip() for name in visible.split(",") if name.strip()]
    else:
        names = [name.strip() for name in gpus.split(",")]
        if unknown := [n for n in names if not n.isdigit() or int(n) >= count]:
            raise UsageError(
                f"--gpus {gpus}: there is no GPU {', '.join(unknown)}; this machine has "
                f"{count}, counted from 0 (nvidia-smi --list-gpus)"
            )
        if len(set(names)) < len(names):
            raise UsageError(f"--gpus {gpus}: one GPU is there twice")
    if not names:
        raise EngineUnusable("the NVIDIA driver shows no GPU; see nvidia-smi")
    shares = _core_shares(len(names))
    return [
        Seat(name=f"GPU {name}", environment={"CUDA_VISIBLE_DEVICES": name}, cores=cores)
        for name, cores in zip(names, shares, strict=True)
    ]


def worker_seats(count: int) -> list[Seat]:
    """Return seats that differ in nothing but their cores."""
    return [
        Seat(name=f"worker {index}", environment={}, cores=cores)
        for index, cores in enumerate(_core_shares(count))
    ]


def _core_shares(count: int) -> list[frozenset[int]]:
    """Deal out the cores: each child counts and keeps to its own, so they do not crowd."""
    if not hasattr(os, "sched_getaffinity"):
        return [frozenset()] * count
    cores = sorted(os.sched_getaffinity(0))
    if count > len(cores):
        return [frozenset({cores[index % len(cores)]}) for index in range(count)]
    return [
        frozenset(cores[len(cores) * i // count : len(cores) * (i + 1) // count])
        for i in range(count)
    ]


def worst(statuses: Sequence[ExitStatus]) -> ExitStatus:
    """Return the status that a launch ends with."""
    return max(statuses, key=_SEVERITY.index)


class Launch:
    """Starts one run for each seat and tends them; use once, from one event loop."""

    def __init__(
        self,
        seats: Sequence[Seat],
        arguments: Sequence[str],
        restart_arguments: Sequence[str],
        on_line: Callable[[Shard, str], None],
    ) -> None:
        """Prepare the runs.

        Args:
            seats: one for each.
            arguments: of ``dsocr-batch run``, without the shard.
            restart_arguments: the same for a child that goes on after a death.
            on_line: called with each line that a child logs.
        """
        self.shards = [Shard(index=index, seat=seat) for index, seat in enumerate(seats)]
        self._arguments = tuple(arguments)
        self._restart_arguments = tuple(restart_arguments)
        self._on_line = on_line
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._stopped = asyncio.Event()
        self._stopped_by: ExitStatus | None = None

    async def run(self) -> ExitStatus:
        """Tend all children to their ends and return the worst status."""
        async with asyncio.TaskGroup() as group:
            tending = [group.create_task(self._tend(shard)) for shard in self.shards]
        return worst([task.result() for task in tending])

    def stop(self, received: signal.Signals) -> None:
        """Pass a signal on to all children, and start none again.

        As SIGTERM: runs take both alike, and one that is only just starting ends without a word.
        """
        self._stopped.set()
        self._stopped_by = ExitStatus[received.name]
        for process in self._processes.values():
            if process.returncode is None:
                process.terminate()

    async def _tend(self, shard: Shard) -> ExitStatus:
        arguments = self._arguments
        while True:
            began = asyncio.get_running_loop().time()
            code = await self._run_once(shard, arguments)
            lasted_s = asyncio.get_running_loop().time() - began
            if self._stopped_by is not None and code in _STOPPED:
                shard.status = self._stopped_by
                return shard.status
            shard.status = ExitStatus.BUG if code < 0 else ExitStatus(code)
            is_death = code < 0 or shard.status in _WORTH_A_RESTART
            if not is_death or self._stopped.is_set():
                return shard.status
            how = signal.Signals(-code).name if code < 0 else f"status {code}"
            if not shard.may_restart(lasted_s):
                shard.given_up = True
                log.error(
                    "shard %d on %s died with %s for the %dth time in a row and is given up; the "
                    "same command later goes on with it",
                    shard.index,
                    shard.seat.name,
                    how,
                    MAX_RESTARTS + 1,
                )
                return shard.status
            shard.restarts += 1
            log.warning(
                "shard %d on %s died with %s: it is started again and goes on where it stopped",
                shard.index,
                shard.seat.name,
                how,
            )
            arguments = self._restart_arguments
            if await self._is_stopped_within(FIRST_PAUSE_S * 2 ** (shard.restarts - 1)):
                return shard.status

    async def _run_once(self, shard: Shard, arguments: Sequence[str]) -> int:
        """Run a child to its end; return its status, or minus the signal that killed it."""
        shard.status = None
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "dsocr_batch", "run", *arguments),
            *("--num-shards", str(len(self.shards)), "--shard-index", str(shard.index)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            limit=_MAX_LINE_BYTES,
            process_group=0,  # Ctrl-C reaches this process alone, which passes it on
            env={**os.environ, **shard.seat.environment, PARENT_VARIABLE: str(os.getpid())},
        )
        self._processes[shard.index] = process
        shard.pid = process.pid
        if shard.seat.cores:
            os.sched_setaffinity(process.pid, shard.seat.cores)
        if process.stderr is None:
            raise AssertionError("a child without a pipe")
        while True:
            try:
                line = await process.stderr.readline()
            except ValueError:  # a line beyond the limit; what was read of it is dropped
                continue
            if not line:
                return await process.wait()
            self._on_line(shard, line.decode("utf-8", "replace").rstrip("\n"))

    async def _is_stopped_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                return await self._stopped.wait()
        except TimeoutError:
            return False


def end_with_launcher() -> None:
    """Let a run that was launched get SIGTERM when its launcher dies; runs in the child."""
    launcher = os.environ.pop(PARENT_VARIABLE, None)
    if launcher is not None:
        die_with(int(launcher), signal.SIGTERM)
