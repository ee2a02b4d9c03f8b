"""Documents brought down from an object store and up to it, a real S3 server on loopback."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest

from dsocr_batch.errors import LockHeld
from dsocr_batch.objects.store import ObjectStore
from dsocr_batch.output.mirror import PUTS_AT_ONCE, Checkout, Mirror
from dsocr_batch.output.paths import DocumentPaths, document_paths
from dsocr_batch.output.record import write_record
from dsocr_batch.output.segments import Segments
from dsocr_batch.records import DocumentRecord, DocumentState, OutputFile, Source
from s3_server import Fault, S3Server


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "workspace"


@pytest.fixture
def mirror(store: ObjectStore, workspace: Path) -> Mirror:
    return Mirror(store, workspace)


@pytest.fixture
def paths(workspace: Path) -> DocumentPaths:
    return document_paths(workspace, "sub/a.pdf")


def record(*outputs: str, sha256: str = "0") -> DocumentRecord:
    return DocumentRecord(
        source=Source(path="sub/a.pdf", bytes=1, mtime_ns=1, sha256=sha256),
        settings_digest="",
        postprocess_version=1,
        engine="",
        model="",
        model_revision="",
        dsocr_batch="",
        finished_at="",
        state=DocumentState.FAILED,
        page_count=None,
        outputs=tuple(OutputFile(path=path, bytes=1, sha256="") for path in outputs),
    )


def put_record(s3: S3Server, tmp_path: Path, *outputs: str) -> None:
    write_record(tmp_path / "record.json", record(*outputs))
    s3.put("out/sub/a.json", (tmp_path / "record.json").read_bytes())


def taken_up(mirror: Mirror, paths: DocumentPaths) -> Checkout:
    async def take_up() -> Checkout:
        checkout = await mirror.check_out(paths)
        await mirror.check_out_journal(checkout)
        return checkout

    return asyncio.run(take_up())


def test_objects_are_stood_for_by_files_of_their_size(
    s3: S3Server, mirror: Mirror, paths: DocumentPaths, tmp_path: Path
) -> None:
    put_record(s3, tmp_path, "a.md", "a_assets/page-0001-figure-01.png")
    s3.put("out/sub/a.md", b"x" * 1000)
    s3.put("out/sub/a_assets/page-0001-figure-01.png", b"y" * 10)
    asyncio.run(mirror.check_out(paths))
    assert paths.markdown.stat().st_size == 1000
    assert paths.figure(1, 1).stat().st_size == 10
    assert paths.record.read_bytes() == s3.get("out/sub/a.json")
    assert not paths.journal.exists()


def test_a_record_cannot_name_files_outside_of_its_document(
    s3: S3Server, mirror: Mirror, paths: DocumentPaths, tmp_path: Path
) -> None:
    hostile = ("../b.md", "/etc/passwd", "../../../../x", "a_assets/../../c", "a_assets/x.png")
    put_record(s3, tmp_path, *hostile)
    s3.put("out/sub/a_assets/x.png", b"not ours")
    s3.put("out/b.md", b"another's")
    checkout = taken_up(mirror, paths)
    assert checkout.stored == {paths.record}
    files = {path for path in (tmp_path / "deep").rglob("*") if path.is_file()}
    assert files == {paths.record}


def test_only_what_has_changed_is_brought_up(
    s3: S3Server, mirror: Mirror, paths: DocumentPaths, tmp_path: Path
) -> None:
    put_record(s3, tmp_path, "a.md")
    for name in ("a.md", "a_grounded.md", "a_assets/page-0001.png", "a_assets/page-0002.png"):
        s3.put(f"out/sub/{name}", b"old")
    checkout = taken_up(mirror, paths)
    paths.markdown.write_bytes(b"new")
    paths.grounded.unlink()
    (paths.assets_dir / "page-0002.png").unlink()
    write_record(paths.record, record("a.md", sha256="1"))
    s3.requests.clear()
    asyncio.run(mirror.publish(checkout))
    assert [request.key for request in s3.asked("PUT")] == ["out/sub/a.md", "out/sub/a.json"]
    assert s3.keys("out/sub") == [
        "out/sub/a.json",
        "out/sub/a.md",
        "out/sub/a_assets/page-0001.png",
    ]
    assert s3.get("out/sub/a.md") == b"new"
    mirror.drop(checkout)
    assert not [path for path in tmp_path.joinpath("deep").rglob("*") if path.is_file()]


@pytest.mark.parametrize("is_there_before", [False, True])
def test_of_two_runs_that_write_a_record_the_second_is_refused(
    s3: S3Server, mirror: Mirror, paths: DocumentPaths, tmp_path: Path, is_there_before: bool
) -> None:
    if is_there_before:
        put_record(s3, tmp_path)
    checkout = taken_up(mirror, paths)
    s3.put("out/sub/a.json", b"another's")
    write_record(paths.record, record("a.md"))
    with pytest.raises(LockHeld, match=r"s3://corpus/out/sub/a\.json was written by another run"):
        asyncio.run(mirror.publish(checkout))
    assert s3.get("out/sub/a.json") == b"another's"


def test_a_lost_answer_to_the_record_is_no_other_run(
    s3: S3Server, mirror: Mirror, paths: DocumentPaths
) -> None:
    checkout = taken_up(mirror, paths)
    write_record(paths.record, record())
    s3.fault(Fault(method="PUT", key=r".*\.json", lose_answer=True))
    asyncio.run(mirror.publish(checkout))
    assert s3.get("out/sub/a.json") == paths.record.read_bytes()


def test_a_journal_goes_up_in_pieces_and_comes_down_whole(
    s3: S3Server, mirror: Mirror, paths: DocumentPaths
) -> None:
    checkout = taken_up(mirror, paths)
    paths.journal.parent.mkdir(parents=True)
    for content in (b"head", b"head and more", b"head and more and more"):
        paths.journal.write_bytes(content)
        asyncio.run(mirror.ship_journal(checkout))
        asyncio.run(mirror.ship_journal(checkout))
    assert [s3.get(key) for key in s3.keys("out/.dsocr")] == [b"head", b" and more", b" and more"]
    mirror.drop(checkout)
    taken_up(mirror, paths)
    assert paths.journal.read_bytes() == b"head and more and more"


def test_page_images_go_up_with_the_pages_that_a_journal_says_are_done(
    s3: S3Server, mirror: Mirror, paths: DocumentPaths
) -> None:
    checkout = taken_up(mirror, paths)
    for path in (paths.journal, paths.assets_dir / "page-0001.png"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    s3.requests.clear()
    asyncio.run(mirror.ship_journal(checkout))
    first, second = s3.asked("PUT")
    assert first.key == "out/sub/a_assets/page-0001.png"
    assert second.key.endswith("/000001-000000.jsonl.gz")


def test_a_new_generation_takes_the_place_of_the_old_one_when_it_has_begun(
    s3: S3Server, store: ObjectStore
) -> None:
    async def write(*pieces: bytes) -> bytes | None:
        segments = Segments(store, "a.jsonl.gz")
        before = await segments.load()
        for piece in pieces:
            await segments.ship(piece)
        return before

    assert asyncio.run(write(b"one", b"two")) is None
    assert asyncio.run(write()) == b"onetwo"
    assert s3.keys("out/a/") == ["out/a/000001-000000.jsonl.gz", "out/a/000001-000001.jsonl.gz"]
    assert asyncio.run(write(b"kept")) == b"onetwo"
    assert s3.keys("out/a/") == ["out/a/000002-000000.jsonl.gz"]
    s3.put("out/a/000003-000001.jsonl.gz", b"of a generation whose beginning was never put")
    assert asyncio.run(write()) == b"kept"
    assert asyncio.run(write(b"last")) == b"kept"
    assert s3.keys("out/a/") == ["out/a/000004-000000.jsonl.gz"]


def test_a_segment_that_was_put_and_not_answered_is_not_put_twice(
    s3: S3Server, store: ObjectStore
) -> None:
    async def write() -> int:
        segments = Segments(store, "a.jsonl.gz")
        s3.put("out/a/000001-000000.jsonl.gz", b"on")  # a put that was given up, and happened
        await segments.ship(b"one")
        await segments.ship(b"one"[segments.shipped_bytes :])
        return segments.shipped_bytes

    assert asyncio.run(write()) == 3
    assert [s3.get(key) for key in s3.keys("out/a/")] == [b"on", b"e"]


def test_a_segment_of_another_run_ends_this_one(s3: S3Server, store: ObjectStore) -> None:
    s3.put("out/a/000001-000000.jsonl.gz", b"another's")
    with pytest.raises(LockHeld, match="written by another run"):
        asyncio.run(Segments(store, "a.jsonl.gz").ship(b"ours"))


def test_documents_that_lie_where_another_has_its_pictures_are_left_to_themselves(
    s3: S3Server, mirror: Mirror, paths: DocumentPaths, workspace: Path
) -> None:
    inner = document_paths(workspace, "sub/a_assets/page-0001.pdf")
    checkouts = [taken_up(mirror, one) for one in (paths, inner)]
    for one in (paths, inner):
        write_record(one.record, record())
        one.markdown.write_bytes(b"text")
    asyncio.run(mirror.publish(checkouts[0]))
    mirror.drop(checkouts[0])
    assert s3.keys("out/sub") == ["out/sub/a.json", "out/sub/a.md"]
    asyncio.run(mirror.publish(checkouts[1]))
    assert s3.keys("out/sub/a_assets") == [
        "out/sub/a_assets/page-0001.json",
        "out/sub/a_assets/page-0001.md",
    ]


def test_pages_that_came_after_a_put_that_was_not_waited_for_go_up_too(
    s3: S3Server, mirror: Mirror, paths: DocumentPaths, store: ObjectStore
) -> None:
    checkout = taken_up(mirror, paths)
    paths.journal.parent.mkdir(parents=True)
    paths.journal.write_bytes(b"one,two,")
    key = mirror._key(paths.journal).replace(".jsonl.gz", "/000001-000000.jsonl.gz")
    s3.put(f"out/{key}", b"one,")
    asyncio.run(mirror.ship_journal(checkout))
    assert asyncio.run(Segments(store, mirror._key(paths.journal)).load()) == b"one,two,"


@pytest.mark.parametrize("is_there_before", [False, True])
def test_what_another_run_has_finished_meanwhile_is_left_as_it_is(
    s3: S3Server, mirror: Mirror, paths: DocumentPaths, tmp_path: Path, is_there_before: bool
) -> None:
    if is_there_before:
        put_record(s3, tmp_path)
    checkout = taken_up(mirror, paths)
    paths.journal.parent.mkdir(parents=True, exist_ok=True)
    paths.journal.write_bytes(b"ours")
    for key in ("out/sub/a.json", f"out/{mirror._key(paths.journal)}"):
        s3.put(key, b"another's")
    theirs = s3.keys()
    for bring_up in (mirror.ship_journal, mirror.store_journal):
        with pytest.raises(LockHeld, match=r"a\.json was written by another run"):
            asyncio.run(bring_up(checkout))
    assert s3.keys() == theirs
    assert s3.get(f"out/{mirror._key(paths.journal)}") == b"another's"


def test_few_enough_files_go_up_at_once_that_each_ends_in_time(
    s3: S3Server, mirror: Mirror, paths: DocumentPaths
) -> None:
    checkout = taken_up(mirror, paths)
    paths.assets_dir.mkdir(parents=True)
    for number in range(1, 21):
        (paths.assets_dir / f"page-{number:04d}.png").write_bytes(b"x")
    lock, under_way, seen = threading.Lock(), set[int](), list[int]()

    def wait() -> None:
        with lock:
            under_way.add(threading.get_ident())
            seen.append(len(under_way))
        time.sleep(0.1)
        with lock:
            under_way.remove(threading.get_ident())

    s3.fault(Fault(method="PUT", times=20, before=wait))
    asyncio.run(mirror.publish(checkout))
    assert len(seen) == 20
    assert max(seen) == PUTS_AT_ONCE
