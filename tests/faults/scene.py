"""What a fault happens to: a small corpus, its output, and runs of the command on them."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from command import environment, read_command
from documents import write_pdf

END_S = 90.0
"""A run that has not ended by then hangs."""

TOKEN = "DSOCR_FAULT_SCENE"  # noqa: S105 - the name of a variable
WRITTEN_AT = 1_700_000_000
"""Records tell when a document was written: it is the same in every scene of a round."""

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where named shared memory shows on Linux
SEAM = Path(__file__).parent / "seam"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a run ended; ``status`` is None if it did not."""

    status: int | None
    stderr: str


class Scene:
    """A corpus of 20 to 40 small pages, one of them blank, and how it is to be read.

    Both follow from the number of the round alone, so that all kinds of fault in one round
    have the same undisturbed run to be compared with.
    """

    def __init__(self, folder: Path, seed: int, round_number: int) -> None:
        self.rng = random.Random(seed)
        self.folder = folder
        self.round_number = round_number
        self.corpus = folder / "in"
        self.out = folder / "out"
        self.log = folder / "reads.log"
        shape = random.Random(round_number)
        self.documents = _make_corpus(self.corpus, shape)
        self._hashes = {name: self.sha256(name) for name in self.documents}
        self.page_ids = {
            f"{name}#{number}"
            for name, page_count in self.documents.items()
            for number in range(1, page_count + 1)
        }
        self.batch_pages = self.rng.choice([1, 2, 4])
        self._cpu_workers = self.rng.choice([1, 2])
        self.options: list[str | Path] = []
        if shape.random() < 0.3:
            self.options += ["--mode", "grounded"]
        if shape.random() < 0.3:
            self.options += ["--save-images"]
        self._pages: dict[str, Any] = {}
        if shape.random() < 0.5:
            self._read_again(shape)
        self.endings: list[Ending] = []
        """Of the disturbed runs."""
        self.undo = ExitStack()
        """Closed when everything was checked."""
        self._token = uuid.uuid4().hex
        self._shared_before = _shared_memory()
        self._temp = folder / "tmp"
        self._temp.mkdir()
        self._started = 0

    def _read_again(self, shape: random.Random) -> None:
        """Have pages retried, some of them with success, and their regions read."""
        self.options += ["--retry-large", "--retry-large-cap", str(shape.randint(1, 4))]
        if "grounded" in self.options:
            self.options += ["--roi-second-pass", "--roi-label", "text", "--roi-merge"]
        box = "<|ref|>text<|/ref|><|det|>[[90, 90, 700, 200]]<|/det|>"
        better = {"text": f"{box}\nIn large, and longer than before: {{digest}}{{digest}}"}
        for page_id in sorted(self.page_ids):
            if shape.random() < 0.5:
                self._pages[page_id] = {"modes": {"large": better}}

    # ---- runs ------------------------------------------------------------------------------

    @contextmanager
    def run(
        self,
        *options: str | Path,
        script: dict[str, Any] | None = None,
        fault: dict[str, Any] | None = None,
        bound_by: Any = None,
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Start a run that is slow enough to be disturbed, and wait for its end.

        Args:
            options: added to those of the scene.
            script: added to the engine's script.
            fault: what ``seam/sitecustomize.py`` does in it.
            bound_by: changes the command line.
        """
        slow = {"delay_s": 0.04 * self.batch_pages, "log": str(self.log), **(script or {})}
        speed = ("--batch-pages", str(self.batch_pages), "--cpu-workers", str(self._cpu_workers))
        command = self._command(self.out, slow, *speed, *options)
        process, stderr = self._start(bound_by(command) if bound_by else command, fault)
        try:
            yield process
        except BaseException:
            process.kill()
            raise
        finally:
            self.endings.append(_ending(process, stderr))

    def resume(self) -> Ending:
        """Run again, undisturbed."""
        return self._read(self.out, {"log": str(self.log)})

    def undisturbed(self, output: Path) -> Ending:
        """Read the corpus as it is now into another folder, in one go."""
        return self._read(output, {})

    def _read(self, output: Path, script: dict[str, Any]) -> Ending:
        return _ending(*self._start(self._command(output, script, "--cpu-workers", "1"), None))

    def _command(self, output: Path, script: dict[str, Any], *options: str | Path) -> list[str]:
        self._started += 1
        path = self.folder / f"script-{self._started}.json"
        path.write_text(json.dumps({"pages": self._pages, **script}), encoding="utf-8")
        return read_command(self.corpus, path, output, *self.options, *options)

    def _start(
        self, command: list[str], fault: dict[str, Any] | None
    ) -> tuple[subprocess.Popen[bytes], Path]:
        extra = {TOKEN: self._token, "TMPDIR": str(self._temp)}
        if fault is not None:
            search = os.pathsep.join(filter(None, [str(SEAM), os.environ.get("PYTHONPATH")]))
            extra |= {"DSOCR_TEST_FAULT": json.dumps(fault), "PYTHONPATH": search}
        stderr = self.folder / f"stderr-{self._started}.txt"
        with stderr.open("wb") as file:
            process = subprocess.Popen(
                command, stdout=file, stderr=file, env={**environment(), **extra}
            )
        return process, stderr

    # ---- what is to be seen ----------------------------------------------------------------

    def reads(self) -> list[str]:
        """Return what the engine has read to its end, in order: pages, in a mode, and regions."""
        return self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []

    def wait_for_pages(self, run: subprocess.Popen[bytes], share: float = 0.8) -> None:
        """Wait until some pages are read; how many follows from the seed."""
        count = self.rng.randint(1, int(share * len(self.page_ids)))
        self.wait_until(run, lambda: len(self.reads()) >= count)

    def wait_for_a_record(self, run: subprocess.Popen[bytes]) -> None:
        """Wait until at least one document is finished."""
        self.wait_until(run, lambda: bool(self.records()))

    def wait_until(self, run: subprocess.Popen[bytes], true: Any) -> None:
        """Wait for something that the run brings about, or for its end."""
        deadline = time.monotonic() + END_S
        while not true() and run.poll() is None:
            assert time.monotonic() < deadline, "the run stands still"
            time.sleep(0.005)

    def child(self, run: subprocess.Popen[bytes], module: str) -> psutil.Process | None:
        """Return one of the run's children that runs a module; None if there is none."""
        try:
            children = psutil.Process(run.pid).children(recursive=True)
            found = [child for child in children if module in child.cmdline()]
        except psutil.Error:
            return None
        return self.rng.choice(found) if found else None

    def sha256(self, name: str) -> str | None:
        """Return the hash of a document as it is now, None if it is gone."""
        try:
            return hashlib.sha256((self.corpus / name).read_bytes()).hexdigest()
        except FileNotFoundError:
            return None

    def is_unchanged(self, name: str) -> bool:
        """Return whether a document is what it was in the beginning."""
        return self.sha256(name) == self._hashes[name]

    def records(self) -> list[Path]:
        """Return the completion records that are there."""
        return sorted(path for path in self.out.rglob("*.json") if ".dsocr" not in path.parts)

    def journals(self) -> list[Path]:
        """Return the journals that are there."""
        return sorted((self.out / ".dsocr" / "pages").rglob("*.jsonl.gz"))

    def processes(self) -> list[psutil.Process]:
        """Return what lives of all processes that the scene ever started."""
        mark = f"{TOKEN}={self._token}".encode()
        alive = []
        for process in psutil.process_iter():
            try:
                environ = Path(f"/proc/{process.pid}/environ").read_bytes()
                if mark in environ and process.status() != psutil.STATUS_ZOMBIE:
                    alive.append(process)
            except (OSError, psutil.Error):
                continue
        return alive

    def shared_memory(self) -> list[str]:
        """Return names in /dev/shm that are new and that no living process has mapped.

        Pages lie in files without a name (memfd), which end with the last process that has them.
        ``sem.mp-*`` are locks of Python's multiprocessing, which no part of a run here uses: other
        programs of this machine make them, and nothing is ever mapped from them for long.
        """
        new = {n for n in _shared_memory() - self._shared_before if not n.startswith("sem.mp-")}
        return sorted(new - _mapped_names()) if new else []

    def temp_files(self) -> list[Path]:
        """Return files that were only meant to be there for a moment."""
        return [*self._temp.iterdir(), *self.out.rglob("*.tmp"), *self.out.rglob(".*.tmp")]


def _shared_memory() -> set[str]:
    return {path.name for path in SHARED_MEMORY.iterdir()} if SHARED_MEMORY.is_dir() else set()


def _mapped_names() -> set[str]:
    mapped: set[str] = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with suppress(OSError):
            lines = maps.read_text(encoding="utf-8", errors="replace").splitlines()
            paths = (line.partition(f"{SHARED_MEMORY}/")[2] for line in lines)
            mapped.update(path.removesuffix(" (deleted)") for path in paths)
    return mapped


def _make_corpus(corpus: Path, rng: random.Random) -> dict[str, int]:
    """Write the documents; return their number of pages by path."""
    names = ["a.pdf", "b.pdf", "c c.pdf", "sub/d.pdf", "sub/deep/é.pdf", "f.pdf", "g.PDF"]
    chosen = rng.sample(names, rng.randint(4, len(names)))
    page_total = rng.randint(20, 40)
    counts = dict.fromkeys(chosen, 1)
    for _ in range(page_total - len(chosen)):
        counts[rng.choice(chosen)] += 1
    blank = rng.choice(chosen), rng.randrange(8)
    for name, count in counts.items():
        texts: list[str | None] = [f"{name}, page {n}: {rng.random()}" for n in range(count)]
        if name == blank[0]:
            texts[blank[1] % count] = None
        write_pdf(corpus / name, texts)
        os.utime(corpus / name, (WRITTEN_AT, WRITTEN_AT))
    return counts


def _ending(process: subprocess.Popen[bytes], stderr: Path) -> Ending:
    status: int | None
    try:
        status = process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        status = None
    return Ending(status=status, stderr=stderr.read_text(encoding="utf-8", errors="replace"))
