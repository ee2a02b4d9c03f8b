"""scripts/aws/fetch_corpus.py against a server on loopback that can misbehave."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from aws import fetch_corpus
from aws.fetch_corpus import Document, FetchError

PDF = b"%PDF-1.7\n" + bytes(range(256)) * 4000
MANIFEST = Path(__file__).parents[1] / "scripts" / "aws" / "greek_public_domain.toml"


@dataclass
class Source:
    """What the server says next, and what it was asked."""

    url: str
    body: bytes = PDF
    etag: str = '"one"'
    ends_after: list[int] = field(default_factory=list)
    """Bytes after which the next connections are cut."""
    statuses: list[int] = field(default_factory=list)
    """Statuses of the next answers."""
    wrong_range: bool = False
    asked: list[dict[str, str]] = field(default_factory=list)


@pytest.fixture
def source() -> Iterator[Source]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.asked.append(dict(self.headers.items()))
            if told.statuses:
                self.send_response(told.statuses.pop(0))
                self.send_header("Retry-After", "7")
                self.end_headers()
                return
            start = self._start()
            if start >= len(told.body):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            if start:
                first = 0 if told.wrong_range else start
                size = len(told.body)
                self.send_header("Content-Range", f"bytes {first}-{size - 1}/{size}")
            self.send_header("Content-Length", str(len(told.body) - start))
            self.send_header("ETag", told.etag)
            self.end_headers()
            end = start + told.ends_after.pop(0) if told.ends_after else len(told.body)
            self.wfile.write(told.body[start:end])

        def _start(self) -> int:
            if self.headers.get("If-Range") not in (None, told.etag):
                return 0
            return int(self.headers.get("Range", "bytes=0-")[6:-1])

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told = Source(url=f"http://127.0.0.1:{server.server_address[1]}/book.pdf")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield told
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def book(source: Source) -> Document:
    return Document(
        identifier="book", title="A book", source_page="page", url=source.url, licence="free"
    )


class Fetcher:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.waits: list[float] = []

    def __call__(self, document: Document) -> str:
        return fetch_corpus.fetch(document, self.folder, "test (me@example.org)", self.waits.append)

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.iterdir()}


@pytest.fixture
def fetch(tmp_path: Path) -> Fetcher:
    return Fetcher(tmp_path)


def test_a_document_is_fetched_whole_and_its_checksum_told(
    source: Source, book: Document, fetch: Fetcher
) -> None:
    digest = hashlib.sha256(PDF).hexdigest()
    assert fetch(book) == f"fetched, {len(PDF)} bytes, sha256 {digest}"
    assert fetch.files() == {"book.pdf": PDF}
    assert source.asked[0]["User-Agent"] == "test (me@example.org)"


def test_a_document_that_is_there_is_not_asked_for(
    source: Source, book: Document, fetch: Fetcher
) -> None:
    fetch(book)
    assert fetch(book) == "is there"
    assert len(source.asked) == 1


def test_a_broken_transfer_goes_on_where_it_stopped(
    source: Source, book: Document, fetch: Fetcher
) -> None:
    source.ends_after = [300_000, 200_000]
    fetch(book)
    assert fetch.files() == {"book.pdf": PDF}
    assert [asked.get("Range") for asked in source.asked] == [
        None,
        "bytes=300000-",
        "bytes=500000-",
    ]
    assert fetch.waits == [5.0, 10.0]


def test_another_run_goes_on_too(source: Source, book: Document, fetch: Fetcher) -> None:
    source.ends_after = [100_000] * fetch_corpus.TRIES
    with pytest.raises(FetchError):
        fetch(book)
    assert set(fetch.files()) == {"book.pdf.part", "book.pdf.part.etag"}
    fetch(book)
    assert source.asked[-1]["Range"] == "bytes=500000-"
    assert fetch.files() == {"book.pdf": PDF}


def test_a_source_that_changed_in_between_is_fetched_anew(
    source: Source, book: Document, fetch: Fetcher
) -> None:
    source.ends_after = [100_000] * fetch_corpus.TRIES
    with pytest.raises(FetchError):
        fetch(book)
    source.body, source.etag = b"%PDF-2.0" + PDF[::-1], '"two"'
    fetch(book)
    assert fetch.files() == {"book.pdf": source.body}


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_without_a_strong_mark_of_the_source_a_broken_transfer_begins_anew(
    source: Source, book: Document, fetch: Fetcher, etag: str
) -> None:
    source.etag = etag
    source.ends_after = [300_000]
    fetch(book)
    assert all("Range" not in asked for asked in source.asked)
    assert fetch.files() == {"book.pdf": PDF}


def test_a_partial_file_that_is_too_long_is_dropped(
    source: Source, book: Document, fetch: Fetcher
) -> None:
    (fetch.folder / "book.pdf.part").write_bytes(PDF + b"more")
    (fetch.folder / "book.pdf.part.etag").write_text(source.etag)
    fetch(book)
    assert fetch.files() == {"book.pdf": PDF}


def test_another_part_than_was_asked_for_is_refused(
    source: Source, book: Document, fetch: Fetcher
) -> None:
    source.ends_after = [300_000]
    source.wrong_range = True
    with pytest.raises(FetchError, match="another part"):
        fetch(book)


def test_a_busy_server_is_given_the_time_it_asks_for(
    source: Source, book: Document, fetch: Fetcher
) -> None:
    source.statuses = [503, 429]
    fetch(book)
    assert fetch.waits == [7.0, 7.0]


def test_a_document_that_does_not_exist_is_asked_for_once(
    source: Source, book: Document, fetch: Fetcher
) -> None:
    source.statuses = [404]
    with pytest.raises(FetchError, match="404"):
        fetch(book)
    assert len(source.asked) == 1
    assert fetch.files() == {}


def test_a_page_of_excuses_is_not_taken_for_the_document(
    source: Source, book: Document, fetch: Fetcher
) -> None:
    source.body = b"<html>Please log in</html>"
    with pytest.raises(FetchError, match="no PDF; see page"):
        fetch(book)
    assert fetch.files() == {}


@pytest.mark.parametrize("wrong", [{"bytes": 7}, {"sha256": "0" * 64}])
def test_what_is_not_as_the_manifest_says_is_not_kept(
    book: Document, fetch: Fetcher, wrong: dict[str, int | str]
) -> None:
    with pytest.raises(FetchError, match="the manifest says"):
        fetch(replace(book, **wrong))  # type: ignore[arg-type]
    assert fetch.files() == {}


def test_one_document_that_fails_does_not_stop_the_others(
    source: Source, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = '[[document]]\ntitle = "t"\nsource_page = "p"\nlicence = "free"\n'
    manifest = tmp_path / "manifest.toml"
    manifest.write_text(
        "".join(f'{entry}identifier = "{name}"\nurl = "{source.url}"\n' for name in "ab")
    )
    source.statuses = [404]
    folder = str(tmp_path / "corpus")
    arguments = [str(manifest), folder, "--contact", "me@example.org", "--pause", "0"]
    assert fetch_corpus.main(arguments) == 1
    told = capsys.readouterr()
    assert told.err.startswith("a: ")
    assert told.out.startswith("b: fetched")
    assert fetch_corpus.main(arguments) == 0


def test_a_dry_run_asks_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "corpus"
    assert fetch_corpus.main([str(MANIFEST), str(folder), "--dry-run"]) == 0
    assert not folder.exists()
    assert capsys.readouterr().out.count("would fetch https://") >= 5


def test_servers_are_not_asked_without_a_contact(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        fetch_corpus.main([str(MANIFEST), "corpus"])
    assert "--contact is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change, told",
    [
        ('identifier = "../etc/passwd"', "no name for a file"),
        ('identifier = ".hidden"', "no name for a file"),
        ('identifier = "a"\nurl = "file:///etc/passwd"', "no web address"),
        ("identifier = 3", "all values but bytes are text"),
        ('identifier = "a"\ncolour = "red"', "colour"),
        ('identifer = "a"', "identifer"),
        ("identifier", "Expected"),
    ],
)
def test_a_manifest_that_is_not_as_expected_is_refused(
    tmp_path: Path, change: str, told: str
) -> None:
    manifest = tmp_path / "manifest.toml"
    url = "" if "url" in change else 'url = "https://example.org/a.pdf"\n'
    rest = f'title = "t"\nsource_page = "p"\nlicence = "free"\n{url}'
    manifest.write_text(f"[[document]]\n{rest}{change}\n")
    with pytest.raises(FetchError, match=told):
        fetch_corpus.read_manifest(manifest)


def test_the_greek_manifest_names_licence_page_and_address_of_each_document() -> None:
    documents = fetch_corpus.read_manifest(MANIFEST)
    assert len(documents) >= 5
    for document in documents:
        assert document.licence.startswith("public domain")
        assert document.identifier in document.source_page
        assert document.url.endswith(f"/{document.identifier}/{document.identifier}.pdf")
        assert document.seen_in is not None
