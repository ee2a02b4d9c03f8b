"""Object stores, against a real S3 server on loopback that fails on order."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dsocr_batch.errors import UsageError
from dsocr_batch.objects import store as stores
from dsocr_batch.objects.records import (
    NoSuchBucket,
    ObjectChanged,
    ObjectInfo,
    ObjectsDenied,
    ObjectsUnreachable,
    ObjectUrl,
    ObjectVanished,
    PreconditionFailed,
    key_problem,
)
from dsocr_batch.objects.store import ObjectStore, open_store
from s3_server import BUCKET, Fault, S3Server

MEGABYTE = os.urandom(1 << 20)


@pytest.fixture
def corpus_store(s3: S3Server) -> Iterator[ObjectStore]:
    with open_store(url_of(f"s3://{BUCKET}/scans")) as store:
        s3.requests.clear()
        yield store


def url_of(text: str) -> ObjectUrl:
    url = ObjectUrl.parse(text)
    assert url is not None
    return url


async def keys_of(store: ObjectStore, prefix: str = "", *, after: str = "") -> list[str]:
    return [info.key async for page in store.listed(prefix, after=after) for info in page]


def download(store: ObjectStore, key: str, path: Path) -> None:
    async def fetch() -> None:
        info = await store.head(key)
        assert info is not None
        assert await store.download(info, path) == info

    asyncio.run(fetch())


# --- URLs -------------------------------------------------------------------------------------


def test_a_url_is_a_bucket_and_a_key() -> None:
    url = url_of("s3://my.bucket-1/a b/ü/")
    assert (url.scheme, url.bucket, url.key) == ("s3", "my.bucket-1", "a b/ü")
    assert str(url) == "s3://my.bucket-1/a b/ü"
    assert str(url.child("x.pdf")) == "s3://my.bucket-1/a b/ü/x.pdf"
    assert str(url.root) == "s3://my.bucket-1"
    assert str(url.root.child("x.pdf")) == "s3://my.bucket-1/x.pdf"


@pytest.mark.parametrize("text", ["scans", "/scans", "a:b/c", "./s3:/x", "in/https://host", "s3:"])
def test_what_is_no_url_is_a_path(text: str) -> None:
    assert ObjectUrl.parse(text) is None


@pytest.mark.parametrize("text", ["s3:/b/x", "S3://b/x", "s3a://b/x", "gcs://b", "https://host/x"])
def test_a_url_of_another_kind_is_no_directory_of_that_name(text: str) -> None:
    with pytest.raises(UsageError, match="s3://"):
        ObjectUrl.parse(text)


@pytest.mark.parametrize(
    "text", ["s3://", "s3:///x", "s3://b b/x", "s3://bucket//x", "s3://bucket/../x", "s3://b\n/x"]
)
def test_a_malformed_url_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        ObjectUrl.parse(text)


@pytest.mark.parametrize(
    "key", ["a//b", "/a", "a/", "", "./a", "a/../b", "a\nb", "a\x7fb", "a\udcffb", "ü" * 513]
)
def test_keys_that_no_file_or_request_could_have_are_told(key: str) -> None:
    assert key_problem(key) is not None


def test_odd_but_possible_keys_are_none_of_them(s3: S3Server) -> None:
    keys = ["a/b c.pdf", "%20+&?#.pdf", "a\\b", "😀", "..a/.b", "é" * 512]
    with open_store(url_of(f"s3://{BUCKET}")) as store:
        for key in keys:
            assert key_problem(key) is None
            asyncio.run(store.put(key, key.encode()))
            assert s3.get(key) == key.encode()
            got = asyncio.run(store.get(key))
            assert got is not None
            assert got[0] == key.encode()
        assert asyncio.run(keys_of(store)) == sorted(keys)


# --- listing ----------------------------------------------------------------------------------


def test_a_listing_has_every_key_below_the_prefix_in_order(
    s3: S3Server, corpus_store: ObjectStore
) -> None:
    for number in range(2100):
        s3.put(f"scans/{number:05d}.pdf", b"x")
    s3.put("scans2/no.pdf", b"x")
    s3.put("scans", b"x")
    assert asyncio.run(keys_of(corpus_store)) == [f"{number:05d}.pdf" for number in range(2100)]
    assert len(s3.asked("GET", "")) == 3


def test_a_listing_can_begin_in_the_middle_and_below_a_folder(
    s3: S3Server, corpus_store: ObjectStore
) -> None:
    for key in ("a/1", "a/2", "a/3", "b/1"):
        s3.put(f"scans/{key}", b"x")
    assert asyncio.run(keys_of(corpus_store, "a")) == ["a/1", "a/2", "a/3"]
    assert asyncio.run(keys_of(corpus_store, "a", after="a/1")) == ["a/2", "a/3"]
    assert asyncio.run(keys_of(corpus_store, after="a/2")) == ["a/3", "b/1"]


@pytest.mark.slow
def test_keys_that_the_client_cannot_take_are_listed_all_the_same(
    s3: S3Server, corpus_store: ObjectStore
) -> None:
    odd = ["a//b.pdf", "a/../c.pdf", "line\nbreak.pdf", "\x01.pdf"]
    for number in range(1100):
        s3.put(f"scans/{number:05d}.pdf", b"x")
    for key in odd:
        s3.put(f"scans/{key}", b"x")
    found = asyncio.run(keys_of(corpus_store))
    assert sorted(found) == sorted([*odd, *(f"{number:05d}.pdf" for number in range(1100))])


@pytest.mark.slow
def test_a_listing_goes_on_after_errors_of_the_server(
    s3: S3Server, corpus_store: ObjectStore
) -> None:
    for number in range(2100):
        s3.put(f"scans/{number:05d}.pdf", b"x")
    s3.fault(Fault(key="", status=503))
    s3.fault(Fault(key="", cut_after_bytes=1000))
    found = asyncio.run(keys_of(corpus_store))
    assert found == [f"{number:05d}.pdf" for number in range(2100)]


def test_a_listing_that_is_denied_says_which_right_is_missing(
    s3: S3Server, corpus_store: ObjectStore
) -> None:
    s3.fault(Fault(key="", status=403, times=9))
    with pytest.raises(ObjectsDenied, match="s3:ListBucket"):
        asyncio.run(keys_of(corpus_store))


# --- downloads --------------------------------------------------------------------------------


def test_a_download_is_the_object(s3: S3Server, corpus_store: ObjectStore, tmp_path: Path) -> None:
    for name, data in {"one": MEGABYTE * 3 + b"x", "empty": b""}.items():
        s3.put(f"scans/{name}", data)
        download(corpus_store, name, tmp_path / name)
        assert (tmp_path / name).read_bytes() == data


def test_a_download_that_is_cut_goes_on_where_it_ended(
    s3: S3Server, corpus_store: ObjectStore, tmp_path: Path
) -> None:
    s3.put("scans/a", MEGABYTE * 4)
    s3.fault(Fault(key="scans/a", cut_after_bytes=3 << 20))
    s3.fault(Fault(key="scans/a", status=503))
    s3.fault(Fault(key="scans/a", cut_after_bytes=100))
    download(corpus_store, "a", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == MEGABYTE * 4
    ranges = [request.headers.get("range") for request in s3.asked("GET", "scans/a")]
    assert ranges[0] is None
    assert int(str(ranges[-1]).removeprefix("bytes=").removesuffix("-")) >= 2 << 20


def test_an_object_that_changes_while_it_is_downloaded_is_never_mixed(
    s3: S3Server, corpus_store: ObjectStore, tmp_path: Path
) -> None:
    s3.put("scans/a", MEGABYTE * 4)
    s3.fault(Fault(key="scans/a", cut_after_bytes=3 << 20))
    s3.fault(Fault(key="scans/a", before=lambda: s3.put("scans/a", bytes(4 << 20))))
    with pytest.raises(ObjectChanged):
        download(corpus_store, "a", tmp_path / "a")


def test_an_object_that_is_gone_or_denied_is_told_at_once(
    s3: S3Server, corpus_store: ObjectStore, tmp_path: Path
) -> None:
    s3.put("scans/a", b"x")
    s3.fault(Fault(key="scans/a", before=lambda: s3.delete("scans/a")))
    with pytest.raises(ObjectVanished):
        download(corpus_store, "a", tmp_path / "a")
    s3.put("scans/b", b"x")
    s3.fault(Fault(key="scans/b", status=403))
    with pytest.raises(ObjectsDenied):
        download(corpus_store, "b", tmp_path / "b")


def test_the_time_stamp_tells_two_versions_of_one_second_apart(
    s3: S3Server, corpus_store: ObjectStore
) -> None:
    s3.put("scans/a", b"x")
    first = asyncio.run(corpus_store.head("a"))
    s3.put("scans/a", b"y")
    second = asyncio.run(corpus_store.head("a"))
    [listed] = asyncio.run(_first_page(corpus_store))
    assert first is not None
    assert second is not None
    assert first.mtime_ns != second.mtime_ns
    assert (listed.bytes, listed.mtime_ns) == (second.bytes, second.mtime_ns)


async def _first_page(store: ObjectStore) -> list[ObjectInfo]:
    async for page in store.listed():
        return list(page)
    return []


def test_a_store_that_is_away_for_a_moment_is_waited_for(
    s3: S3Server, corpus_store: ObjectStore
) -> None:
    s3.put("scans/a", b"x")

    async def ask() -> None:
        s3.is_away = True
        asked = asyncio.ensure_future(corpus_store.get("a"))
        await asyncio.sleep(1.2)
        assert not asked.done()
        s3.is_away = False
        answer = await asked
        assert answer is not None

    asyncio.run(ask())


def test_a_store_that_stays_away_is_given_up_with_its_name(
    s3: S3Server, corpus_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "PATIENCE_S", 0.5)
    s3.is_away = True
    with pytest.raises(ObjectsUnreachable, match=f"s3://{BUCKET}/scans"):
        asyncio.run(corpus_store.get("a"))


# --- puts -------------------------------------------------------------------------------------


def test_only_one_of_two_writers_creates_an_object(s3: S3Server, corpus_store: ObjectStore) -> None:
    async def race() -> list[object]:
        puts = [corpus_store.put("lock", b"%d" % n, only_if_absent=True) for n in range(8)]
        return await asyncio.gather(*puts, return_exceptions=True)

    results = asyncio.run(race())
    assert sum(isinstance(result, PreconditionFailed) for result in results) == 7
    assert s3.get("scans/lock") == b"%d" % [
        isinstance(result, PreconditionFailed) for result in results
    ].index(False)


def test_a_put_can_be_for_one_version_alone(s3: S3Server, corpus_store: ObjectStore) -> None:
    first = asyncio.run(corpus_store.put("a", b"1"))
    second = asyncio.run(corpus_store.put("a", b"2", only_if=first))
    assert second != first
    with pytest.raises(PreconditionFailed):
        asyncio.run(corpus_store.put("a", b"3", only_if=first))
    s3.delete("scans/a")
    with pytest.raises(PreconditionFailed):
        asyncio.run(corpus_store.put("a", b"3", only_if=second))


def test_a_file_of_many_parts_is_put_whole(
    s3: S3Server, corpus_store: ObjectStore, tmp_path: Path
) -> None:
    (tmp_path / "big").write_bytes(MEGABYTE * 12)
    asyncio.run(corpus_store.put_file("big", tmp_path / "big"))
    assert s3.get("scans/big") == MEGABYTE * 12


def test_objects_are_deleted_also_if_they_are_not_there(
    s3: S3Server, corpus_store: ObjectStore
) -> None:
    s3.put("scans/a", b"1")
    asyncio.run(corpus_store.delete(["a", "b"]))
    assert s3.keys() == []
    assert asyncio.run(corpus_store.head("a")) is None
    assert asyncio.run(corpus_store.get("a")) is None


# --- opening ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("s3")
def test_a_bucket_that_is_not_there_is_told() -> None:
    with pytest.raises(NoSuchBucket, match="s3://elsewhere"):
        open_store(url_of("s3://elsewhere/scans"))


@pytest.mark.usefixtures("s3")
def test_an_endpoint_that_does_not_answer_is_told_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    began = time.monotonic()
    with pytest.raises(ObjectsUnreachable, match="AWS_ENDPOINT_URL"):
        open_store(url_of(f"s3://{BUCKET}"))
    assert time.monotonic() - began < 10


def test_missing_credentials_are_told_with_where_they_are_looked_for(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(UsageError, match=r"~/\.aws"):
        open_store(url_of(f"s3://{BUCKET}"))
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    with open_store(url_of(f"s3://{BUCKET}")) as store:
        s3.put("public", b"x")
        with pytest.raises(ObjectsDenied):  # by this server, to strangers
            asyncio.run(store.get("public"))
    assert "authorization" not in s3.asked("GET", "public")[0].headers


def test_profile_and_endpoint_may_be_told_by_the_files_of_the_aws_command_line(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in s3.env:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    (tmp_path / "config").write_text(
        "[profile ours]\nregion = eu-west-1\nendpoint_url = "
        f"{s3.url}\naws_access_key_id = AKIDPROFILE\naws_secret_access_key = secret\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "ours")
    s3.put("a", b"x")
    with open_store(url_of(f"s3://{BUCKET}")) as store:
        assert asyncio.run(store.get("a")) is not None
    signed = s3.asked("GET", "a")[0].headers["authorization"]
    assert "AKIDPROFILE" in signed


def test_no_message_quotes_what_a_store_answers(s3: S3Server, corpus_store: ObjectStore) -> None:
    with pytest.raises(ObjectsDenied) as denied:
        s3.fault(Fault(key="scans/a", status=403))
        asyncio.run(corpus_store.get("a"))
    assert "Code" not in str(denied.value)
    assert denied.value.__cause__ is None


@pytest.mark.slow
def test_a_process_that_used_a_store_ends_as_it_should(s3: S3Server) -> None:
    # obstore's coroutines abort the interpreter at its exit, every other time.
    s3.put("a", b"x")
    code = (
        "import asyncio\n"
        "from dsocr_batch.objects.records import ObjectUrl\n"
        "from dsocr_batch.objects.store import open_store\n"
        f"with open_store(ObjectUrl.parse('s3://{BUCKET}')) as store:\n"
        "    asyncio.run(store.get('a'))\n"
    )
    for _ in range(8):
        subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_a_put_that_another_request_is_in_the_way_of_is_tried_again(
    s3: S3Server, corpus_store: ObjectStore, tmp_path: Path
) -> None:
    s3.put("scans/a", b"old")
    found = asyncio.run(corpus_store.head("a"))
    assert found is not None
    s3.fault(Fault(method="PUT", status=409))
    asyncio.run(corpus_store.put("a", b"new", only_if=found.version))
    s3.fault(Fault(method="PUT", status=409))
    (tmp_path / "file").write_bytes(b"newer")
    asyncio.run(corpus_store.put_file("a", tmp_path / "file"))
    assert s3.get("scans/a") == b"newer"


def test_a_store_that_was_closed_is_out_of_reach(corpus_store: ObjectStore) -> None:
    corpus_store.close()
    with pytest.raises(ObjectsUnreachable, match="not used any more"):
        asyncio.run(corpus_store.get("a"))


def test_an_object_that_may_not_be_deleted_is_told_at_once(
    s3: S3Server, corpus_store: ObjectStore
) -> None:
    s3.put("scans/a", b"1")
    s3.put("scans/b", b"2")
    s3.fault(Fault(method="DELETE", key="scans/b", status=403))
    with pytest.raises(ObjectsDenied):
        asyncio.run(corpus_store.delete(["a", "b"]))
    assert s3.get("scans/b") == b"2"
