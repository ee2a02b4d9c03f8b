"""Fixtures that tests share."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from documents import write_pdf
from dsocr_batch.objects.records import ObjectUrl
from dsocr_batch.objects.store import ObjectStore, open_store
from s3_server import BUCKET, S3Server, bucket_serving, moto_serving

REPOSITORY = Path(__file__).resolve().parents[1]

# Nothing here is timed: how long an example takes is the machine's business.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Other people's files, where this machine has them beside the checkout."""
    folder = Path(os.environ.get("DSOCR_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no test data in {folder}; set DSOCR_TEST_DATA")
    return folder


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Seven documents with 21 pages, one of them blank, in two folders."""
    folder = tmp_path / "in"
    for number in range(5):
        name = folder / f"doc{number}.pdf"
        write_pdf(name, [f"document {number}, page {page}" for page in range(1, number + 2)])
    write_pdf(folder / "sub" / "with blank.pdf", ["first", None, "third"])
    write_pdf(folder / "sub" / "upper.PDF", ["one", "two", "three"])
    return folder


@pytest.fixture(scope="session")
def moto_port() -> Iterator[int]:
    """Return where moto's server is: it takes a third of a second to start, half of one to end."""
    with moto_serving() as port:
        yield port


@pytest.fixture
def s3(moto_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """An S3 server with one empty bucket, which this process and its children know."""
    with bucket_serving(moto_port) as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def store(s3: S3Server) -> Iterator[ObjectStore]:
    """The folder ``out`` of that server's bucket, opened."""
    assert s3.url
    with open_store(ObjectUrl(scheme="s3", bucket=BUCKET, key="out")) as store:
        yield store


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The output directory of a test's runs; not made yet."""
    return tmp_path / "out"


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., Path]:
    """Return a writer of scripts for the scripted engine, which log what it reads."""

    def write(**script: Any) -> Path:
        path = tmp_path / "script.json"
        script.setdefault("log", str(tmp_path / "reads.log"))
        path.write_text(json.dumps(script), encoding="utf-8")
        return path

    return write
