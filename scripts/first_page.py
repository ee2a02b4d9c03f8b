"""Measure the time from the command to the first page submitted, in a folder of many PDFs.

    scripts/first_page.py --documents 10000
    scripts/first_page.py --documents 10000 --s3

Nothing may be opened before it is needed: names are listed, and the first pages are read while
the rest waits. The scripted engine of the tests takes the page and notes when. With ``--s3`` the
documents lie in a bucket of moto's server on loopback, which is slow: what it takes to list them,
and no more, is told beside.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import pymupdf

from dsocr_batch.objects.records import ObjectUrl
from dsocr_batch.objects.store import open_store

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from s3_server import BUCKET, s3_serving

WAIT_S = 60.0


def make_documents(folder: Path, count: int) -> None:
    """Write equal PDFs of one page."""
    document = pymupdf.open()
    document.new_page().insert_text((72, 72), "the first page")
    data = document.tobytes()
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:06d}.pdf").write_bytes(data)


@contextmanager
def in_bucket(folder: Path) -> Iterator[str]:
    """Serve the files of a folder as objects and give the URL of their prefix."""
    with s3_serving() as server:
        os.environ.update(server.env)
        server.put_tree(folder, "in")
        url = ObjectUrl(scheme="s3", bucket=BUCKET, key="in")
        began = time.monotonic()
        count = asyncio.run(count_objects(url))
        print(f"{count} objects listed, and nothing else: {time.monotonic() - began:.2f} s")
        yield str(url)


async def count_objects(url: ObjectUrl) -> int:
    """Return how many objects a listing has."""
    with open_store(url) as store:
        return sum([len(page) async for page in store.listed()])


def seconds_to_first_page(folder: Path, documents: Path | str) -> float:
    """Return the time from starting the command until its first page was read."""
    reads = folder / "reads.log"
    reads.unlink(missing_ok=True)
    script = folder / "script.json"
    script.write_text(json.dumps({"log": str(reads)}), encoding="utf-8")
    with TemporaryDirectory() as output:
        began = time.monotonic()
        command = subprocess.Popen(
            [
                *(sys.executable, "-m", "dsocr_batch", "run", "--engine", "scripted"),
                *("--model", script, "--input-dir", documents, "--output-dir", output),
                *("--no-progress", "--log-level", "error"),
            ]
        )
        while not reads.exists():
            if command.poll() is not None or time.monotonic() - began > WAIT_S:
                raise SystemExit("no page was read")
            time.sleep(0.002)
        seconds = time.monotonic() - began
        command.kill()
        command.wait()
    return seconds


def main() -> None:
    """Print the times of some runs, each from nothing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--s3", action="store_true", help="from a bucket")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        inputs = Path(folder) / "in"
        make_documents(inputs, options.documents)
        with in_bucket(inputs) if options.s3 else nullcontext(inputs) as place:
            seconds = sorted(
                seconds_to_first_page(Path(folder), place) for _ in range(options.runs)
            )
    print(
        f"{options.documents} documents: first page after {seconds[0]:.2f} s at best, "
        f"{seconds[len(seconds) // 2]:.2f} median, {seconds[-1]:.2f} at worst"
    )


if __name__ == "__main__":
    main()
