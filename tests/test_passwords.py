"""Encrypted documents: ``--password-file`` opens them, and what is in it is written nowhere."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from command import read, running, wait_until
from documents import write_pdf
from hostile import encrypted
from outputs import pages_read, record_of

pytestmark = pytest.mark.slow

Script = Callable[..., Path]

FIRST, SECOND = "correct horse", "Füllfeder 🖋"


@pytest.fixture
def locked(tmp_path: Path) -> Path:
    """Two documents with a password each, and one that needs none."""
    folder = write_pdf(tmp_path / "in" / "open.pdf", ["text"]).parent
    encrypted(folder / "first.pdf", FIRST)
    encrypted(folder / "second.pdf", SECOND)
    return folder


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    file = tmp_path / "keys.txt"
    file.write_text(f"\ufeffwrong one\r\n\r\n{FIRST}\r\n{SECOND}", encoding="utf-8")
    return file


def test_encrypted_documents_open_with_a_password_of_the_file(
    locked: Path, out: Path, script: Script, keys: Path, tmp_path: Path
) -> None:
    done = read(locked, script(), out, "--password-file", keys)
    assert done.status == 0, done.stderr
    assert len(pages_read(tmp_path)) == 5


@pytest.mark.parametrize(
    "passwords, says", [(None, "name that with --password-file"), ("wrong", "no password in the")]
)
def test_without_the_right_password_the_reason_names_the_option(
    locked: Path, out: Path, script: Script, tmp_path: Path, passwords: str | None, says: str
) -> None:
    file = tmp_path / "wrong.txt"
    file.write_text("wrong\n", encoding="utf-8")
    options = () if passwords is None else ("--password-file", file)
    done = read(locked, script(), out, *options)
    assert done.status == 3, done.stderr
    record = record_of(out, "first")
    assert record["reason_code"] == "encrypted"
    assert says in record["reason"]
    assert "--password-file" in record["reason"]


def test_a_password_file_makes_a_rerun_try_encrypted_documents_and_no_others(
    locked: Path, out: Path, script: Script, keys: Path, tmp_path: Path
) -> None:
    (locked / "empty.pdf").write_bytes(b"")
    assert read(locked, script(), out).status == 3
    failed = (out / "empty.json").stat().st_mtime_ns
    with_keys = read(locked, script(), out, "--password-file", keys)
    assert with_keys.status == 3, with_keys.stderr
    assert record_of(out, "first")["state"] == record_of(out, "second")["state"] == "ok"
    assert (out / "empty.json").stat().st_mtime_ns == failed
    without = read(locked, script(unusable="what was read stays read"), out)
    assert without.status == 3, without.stderr
    assert Counter(pages_read(tmp_path)).most_common(1)[0][1] == 1


def test_passwords_are_written_nowhere(
    locked: Path, out: Path, script: Script, keys: Path, tmp_path: Path
) -> None:
    log = tmp_path / "run.log"
    encrypted(locked / "third.pdf", "not in the file")
    options = ("--password-file", keys, "--log-level", "debug", "--log-file", log)
    with running(locked, script(delay_s=0.3), out, *options, "--content-debug") as process:
        wait_until(lambda: len(psutil.Process(process.pid).children()) > 0)
        family = [process.pid, *(c.pid for c in psutil.Process(process.pid).children())]
        for pid in family:
            told = psutil.Process(pid)
            assert FIRST not in " ".join([*told.cmdline(), *told.environ().values()])
        assert process.wait(60) == 3
        stderr = process.stderr.read() if process.stderr else ""
    written = [
        gzip.decompress(path.read_bytes()) for path in (out / ".dsocr" / "pages").rglob("*.gz")
    ]
    written += [path.read_bytes() for path in out.rglob("*") if path.is_file()]
    written += [log.read_bytes(), stderr.encode()]
    for secret in (FIRST, SECOND):
        for form in (secret, json.dumps(secret)[1:-1]):
            assert not any(form.encode() in data for data in written)


@pytest.mark.parametrize(
    "content, says",
    [(None, "No such file"), (b"", "holds no password"), (b"\xff\xfesecret", "not UTF-8")],
)
def test_a_password_file_that_cannot_serve_is_refused_without_quoting_it(
    locked: Path, out: Path, script: Script, tmp_path: Path, content: bytes | None, says: str
) -> None:
    file = tmp_path / "keys.txt"
    if content is not None:
        file.write_bytes(content)
    refused = read(locked, script(), out, "--password-file", file)
    assert refused.status == 2
    assert "--password-file" in refused.stderr
    assert says in " ".join(refused.stderr.split())
    assert "secret" not in refused.stderr
    assert not out.exists()


def test_pictures_are_cut_out_of_encrypted_documents_too(
    locked: Path, out: Path, script: Script, keys: Path
) -> None:
    picture = {"text": "<|ref|>image<|/ref|><|det|>[[100, 100, 500, 300]]<|/det|>\n"}
    options = ("--password-file", keys, "--save-figures")
    done = read(locked, script(pages={"first.pdf#1": picture}), out, *options)
    assert done.status == 0, done.stderr
    assert record_of(out, "first")["counters"]["figures_saved"] == 1
