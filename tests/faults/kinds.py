"""The kinds of fault, one function each. A function disturbs a run and waits for its end."""

from __future__ import annotations

import json
import mmap
import os
import resource
import shutil
import signal
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from documents import write_pdf
from dsocr_batch.errors import ExitStatus
from faults.machine import bound_by_permissions, can_mount, small_disk
from faults.scene import END_S, Scene

RENDER_WORKER = "dsocr_batch.render.worker"
ENGINE = "dsocr_scripted.child"

KILLED = -signal.SIGKILL
FULL_DISK_BYTES = 72 << 20
"""A run stops below 64 MiB of free space (``app.MIN_FREE_BYTES``), so there must be more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of fault, and the statuses in which the runs that it hits may end."""

    name: str
    strike: Callable[[Scene], None]
    statuses: frozenset[int]


KINDS: list[Kind] = []
"""Seed n makes a fault of kind n modulo their number."""


def fault(*statuses: int) -> Callable[[Callable[[Scene], None]], Callable[[Scene], None]]:
    """Enter a function into ``KINDS``."""

    def enter(strike: Callable[[Scene], None]) -> Callable[[Scene], None]:
        name = strike.__name__.replace("_", " ")
        KINDS.append(Kind(name=name, strike=strike, statuses=frozenset(statuses)))
        return strike

    return enter


# ---- processes that die or hang --------------------------------------------------------------


@fault(KILLED)
def sigkill_to_the_run(scene: Scene) -> None:
    with scene.run() as run:
        scene.wait_for_pages(run)
        run.kill()


@fault(KILLED)
def sigkill_to_the_run_before_it_changes_a_file(scene: Scene) -> None:
    # A run changes about 10 files, and 8 for each document; few seeds hit none of them.
    at = scene.rng.randint(1, 10 + 8 * len(scene.documents))
    with scene.run(fault={"do": "kill", "below": str(scene.out), "at": at}):
        pass


# Two of the kills may hit the same page or document, which then fails for now.
@fault(ExitStatus.OK, ExitStatus.SOME_FAILED)
def sigkill_to_a_render_worker(scene: Scene) -> None:
    with scene.run() as run:
        for _ in range(scene.rng.randint(1, 3)):
            scene.wait_for_pages(run, share=0.5)
            if worker := scene.child(run, RENDER_WORKER):
                worker.kill()


@fault(ExitStatus.OK)
def sigkill_to_the_engine(scene: Scene) -> None:
    with scene.run(script={"own_process": True, "delay_s": 0.06}) as run:
        scene.wait_for_pages(run)
        if engine := scene.child(run, ENGINE):
            engine.kill()


# A crowded machine may be too slow for the second try as well: then the page fails for now.
@fault(ExitStatus.OK, ExitStatus.SOME_FAILED)
def sigstop_to_a_render_worker(scene: Scene) -> None:
    with scene.run("--page-timeout", "4") as run:
        scene.wait_for_pages(run, share=0.5)
        if worker := scene.child(run, RENDER_WORKER):
            worker.send_signal(signal.SIGSTOP)


@fault(ExitStatus.OK)
def sigstop_to_the_engine(scene: Scene) -> None:
    slow = {"own_process": True, "delay_s": 0.06}
    with scene.run("--engine-timeout", "2", script=slow) as run:
        scene.wait_for_pages(run)
        if engine := scene.child(run, ENGINE):
            engine.send_signal(signal.SIGSTOP)


# ---- output that cannot be written -----------------------------------------------------------


@fault(ExitStatus.OUTPUT_NOT_WRITABLE)
def enospc_on_the_output(scene: Scene) -> None:
    """Fill the disk in the middle. Where there is no root, files may not grow instead."""
    if not can_mount():
        output_files_may_not_grow(scene)
        return
    scene.undo.enter_context(small_disk(scene.out, FULL_DISK_BYTES))
    left = scene.rng.randrange(4) * mmap.PAGESIZE
    ballast = scene.out / ".ballast"
    with scene.run() as run:
        scene.wait_for_pages(run)
        with ballast.open("wb") as file:
            while (free := shutil.disk_usage(scene.out).free) > left:
                with suppress(OSError):  # the run was quicker, and took some of it
                    size = os.fstat(file.fileno()).st_size
                    os.posix_fallocate(file.fileno(), size, free - left)
    ballast.unlink()


@fault(ExitStatus.OUTPUT_NOT_WRITABLE)
def output_files_may_not_grow(scene: Scene) -> None:
    # The log of pages read stays below 1 kB, a journal or a record of two pages does not.
    with scene.run() as run:
        scene.wait_for_pages(run, share=0.5)
        limit = scene.rng.randint(1000, 1400)
        psutil.Process(run.pid).rlimit(resource.RLIMIT_FSIZE, (limit, limit))


def _eio(do: str, most: int, scene: Scene) -> None:
    at = scene.rng.randint(1, most)
    with scene.run(fault={"do": do, "below": str(scene.out), "at": at}):
        pass


@fault(ExitStatus.OUTPUT_NOT_WRITABLE)
def eio_on_write(scene: Scene) -> None:
    _eio("seccomp write", 12, scene)


@fault(ExitStatus.OUTPUT_NOT_WRITABLE)
def eio_on_fsync(scene: Scene) -> None:
    _eio("seccomp fsync", 12, scene)


@fault(ExitStatus.OUTPUT_NOT_WRITABLE)
def eio_on_changing_a_file(scene: Scene) -> None:
    _eio("eio", 30, scene)


@fault(ExitStatus.OUTPUT_NOT_WRITABLE)
def output_made_read_only(scene: Scene) -> None:
    with scene.run(bound_by=bound_by_permissions) as run:
        scene.wait_for_pages(run, share=0.6)
        folders = [scene.out, *(path for path in scene.out.rglob("*") if path.is_dir())]
        for folder in folders:
            folder.chmod(0o555)
    for folder in folders:
        folder.chmod(0o755)


# ---- files of ours that are damaged ----------------------------------------------------------


@fault(KILLED)
def torn_last_line_in_a_journal(scene: Scene) -> None:
    with scene.run() as run:
        scene.wait_for_pages(run)
        scene.wait_until(run, lambda: bool(scene.journals()))
        run.kill()
    journal = max(scene.journals(), key=lambda path: path.stat().st_mtime_ns)
    os.truncate(journal, max(0, journal.stat().st_size - scene.rng.randint(1, 60)))


@fault(KILLED)
def flipped_byte_in_a_journal(scene: Scene) -> None:
    with scene.run() as run:
        scene.wait_for_pages(run)
        scene.wait_until(run, lambda: bool(scene.journals()))
        run.kill()
    _flip_a_bit(scene, scene.rng.choice(scene.journals()))


@fault(KILLED)
def flipped_byte_in_a_record(scene: Scene) -> None:
    with scene.run() as run:
        scene.wait_for_a_record(run)
        run.kill()
    _flip_a_bit(scene, scene.rng.choice(scene.records()))


def _flip_a_bit(scene: Scene, path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[scene.rng.randrange(len(data))] ^= 1 << scene.rng.randrange(8)
    path.write_bytes(data)


# ---- inputs that change ----------------------------------------------------------------------


@fault(ExitStatus.OK, ExitStatus.SOME_FAILED)
def input_replaced(scene: Scene) -> None:
    path = _some_input(scene)
    original = _Original(path)
    count = scene.rng.randint(1, 8)
    other = write_pdf(scene.folder / "other.pdf", [f"other {n}" for n in range(count)])
    with scene.run() as run:
        scene.wait_for_pages(run, share=0.6)
        if scene.rng.random() < 0.5:
            other.replace(path)
        else:
            path.write_bytes(other.read_bytes())
    original.maybe_restore(scene)


@fault(ExitStatus.OK, ExitStatus.SOME_FAILED)
def input_truncated(scene: Scene) -> None:
    path = _some_input(scene)
    original = _Original(path)
    with scene.run() as run:
        scene.wait_for_pages(run, share=0.6)
        os.truncate(path, scene.rng.randrange(path.stat().st_size))
    original.maybe_restore(scene)


@fault(ExitStatus.OK, ExitStatus.SOME_FAILED)
def input_removed(scene: Scene) -> None:
    path = _some_input(scene)
    original = _Original(path)
    with scene.run() as run:
        scene.wait_for_pages(run, share=0.6)
        path.unlink()
    original.restore()


def _some_input(scene: Scene) -> Path:
    return scene.corpus / scene.rng.choice(sorted(scene.documents))


class _Original:
    """A file as it was, to the nanosecond."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._data = path.read_bytes()
        self._stat = path.stat()

    def restore(self) -> None:
        self._path.write_bytes(self._data)
        os.utime(self._path, ns=(self._stat.st_atime_ns, self._stat.st_mtime_ns))

    def maybe_restore(self, scene: Scene) -> None:
        """Bring the original back, or leave the corpus as it is now."""
        if scene.rng.random() < 0.5:
            self.restore()


# ---- the rest --------------------------------------------------------------------------------


@fault(ExitStatus.OK, KILLED)
def clock_set_back(scene: Scene) -> None:
    trigger = scene.folder / "clock-is-set-back"
    with scene.run(fault={"do": "clock", "trigger": str(trigger)}) as run:
        scene.wait_for_pages(run)
        trigger.touch()
        if scene.rng.random() < 0.5:
            scene.wait_for_pages(run)
            run.kill()


@fault(ExitStatus.OK, ExitStatus.USAGE)
def two_runs_at_once(scene: Scene) -> None:
    """Start a second run beside a first one, which stands still until the second has ended."""
    rival = scene.rng.choice([(), ("--num-shards", "2")])
    with ExitStack() as stack:
        runs = [stack.enter_context(scene.run())]
        if scene.rng.random() < 0.5:
            scene.wait_for_pages(runs[0], share=0.3)
            runs[0].send_signal(signal.SIGSTOP)
            runs.append(stack.enter_context(scene.run(*rival)))
        else:
            runs.append(stack.enter_context(scene.run(*rival)))
            scene.wait_until(runs[0], lambda: bool(scene.journals()))
        (lock,) = (scene.out / ".dsocr" / "locks").glob("shard-*.lock")
        holder = json.loads(lock.read_bytes())["pid"]
        os.kill(holder, signal.SIGSTOP)
        for run in runs:
            if run.pid != holder:
                run.wait(END_S)
        os.kill(holder, signal.SIGCONT)
    first, second = sorted(scene.endings, key=lambda ending: ending.status or 0)
    assert (first.status, second.status) == (ExitStatus.OK, ExitStatus.USAGE), scene.endings
    assert "is at work on this output" in second.stderr, second.stderr
