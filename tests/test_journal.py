from __future__ import annotations

import gzip
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from io import FileIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsocr_batch.errors import OutputNotWritable
from dsocr_batch.output.journal import Journal, LoadedJournal, load_journal
from dsocr_batch.records import (
    JournalEntry,
    JournalHeader,
    PageRecord,
    PageState,
    Source,
)

HEADER = JournalHeader(
    source=Source(path="sub/paper.pdf", bytes=10, mtime_ns=1, sha256="ab"),
    settings_digest="cd",
    page_count=9,
)


def entry(page_number: int, raw_text: str = "text\n") -> JournalEntry:
    return JournalEntry(
        page=PageRecord(page_number=page_number, state=PageState.OK), raw_text=raw_text
    )


def texts(loaded: LoadedJournal | None) -> dict[int, str]:
    assert loaded is not None
    return {number: item.raw_text for number, item in loaded.entries.items()}


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal.start(tmp_path / "j.gz", HEADER)
    yield opened
    opened.close()


def test_pages_are_found_again_at_once_and_the_later_entry_wins(
    tmp_path: Path, journal: Journal
) -> None:
    journal.append(entry(1, "first"))
    journal.append(entry(3, "third"))
    journal.append(entry(1, "better"))
    loaded = load_journal(tmp_path / "j.gz")
    assert loaded is not None
    assert loaded.header == HEADER
    assert loaded.entries == {1: entry(1, "better"), 3: entry(3, "third")}


def test_the_file_is_lines_of_json_for_zcat(tmp_path: Path, journal: Journal) -> None:
    journal.append(entry(1, "日本"))
    lines = gzip.decompress((tmp_path / "j.gz").read_bytes()).decode("utf-8").splitlines()
    assert len(lines) == 2
    assert '"settings_digest":"cd"' in lines[0]
    assert '"raw_text":"日本"' in lines[1]


def test_there_is_no_journal_where_there_is_no_file(tmp_path: Path) -> None:
    assert load_journal(tmp_path / "j.gz") is None


def test_starting_again_keeps_the_given_pages_only(tmp_path: Path) -> None:
    path = tmp_path / "j.gz"
    with_damage = Journal.start(path, HEADER, [entry(1), entry(2)])
    with_damage.close()
    path.write_bytes(path.read_bytes() + b"torn")
    renewed = Journal.start(path, HEADER, [entry(2)])
    renewed.append(entry(5))
    renewed.close()
    assert sorted(texts(load_journal(path))) == [2, 5]
    assert b"torn" not in path.read_bytes()
    assert [item.name for item in tmp_path.iterdir()] == ["j.gz"]


def test_a_closed_journal_can_be_closed_again_but_not_appended_to(journal: Journal) -> None:
    journal.append(entry(1))
    journal.sync()
    journal.close()
    journal.close()
    with pytest.raises(ValueError):
        journal.append(entry(2))


def test_a_journal_that_could_not_be_synced_can_be_closed_again(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()  # takes writes, and no fsync
    journal = Journal(tmp_path / "j.gz", FileIO(write_end, "wb"), 0)
    journal.append(entry(1))
    with pytest.raises(OutputNotWritable):
        journal.close()
    journal.close()
    os.close(read_end)


def test_another_schema_and_pages_that_cannot_be_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "j.gz"
    Journal.start(path, HEADER, [entry(0), entry(1), entry(10)]).close()
    assert sorted(texts(load_journal(path))) == [1]
    Journal.start(path, replace(HEADER, schema_version=2), [entry(1)]).close()
    assert load_journal(path) is None


def test_text_that_utf8_cannot_hold_is_escaped_and_kept(tmp_path: Path, journal: Journal) -> None:
    journal.append(entry(1, "lone \ud800"))
    assert texts(load_journal(tmp_path / "j.gz")) == {1: r"lone \ud800"}


@cache
def sample(folder: Path) -> tuple[bytes, tuple[int, ...]]:
    """A journal of five pages, and where each of its members ends."""
    path = folder / "sample.gz"
    opened = Journal.start(path, HEADER)
    ends = [path.stat().st_size]
    for number in range(1, 6):
        opened.append(entry(number, f"page {number} " * 40))
        ends.append(path.stat().st_size)
    opened.close()
    return path.read_bytes(), tuple(ends)


def test_cutting_the_file_anywhere_costs_at_most_the_last_page(tmp_path: Path) -> None:
    data, ends = sample(tmp_path)
    path = tmp_path / "cut.gz"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        loaded = load_journal(path)
        whole = sum(end <= length for end in ends)
        if whole == 0:
            assert loaded is None
        else:
            assert sorted(texts(loaded)) == list(range(1, whole))


def test_flipping_any_byte_costs_at_most_the_page_that_it_hits(tmp_path: Path) -> None:
    data, ends = sample(tmp_path)
    path = tmp_path / "flipped.gz"
    good = load_journal(tmp_path / "sample.gz")
    assert good is not None
    for position in range(len(data)):
        flipped = bytearray(data)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(flipped)
        loaded = load_journal(path)
        hit = sum(end <= position for end in ends)
        if loaded is None:
            assert hit == 0
            continue
        assert {1, 2, 3, 4, 5} - loaded.entries.keys() <= {hit}
        assert all(good.entries[number] == item for number, item in loaded.entries.items())


@given(start=st.integers(0, 2000), length=st.integers(1, 300), filling=st.binary(max_size=300))
@settings(max_examples=150)
def test_whatever_a_disk_does_to_a_stretch_the_pages_outside_it_are_kept(
    tmp_path_factory: pytest.TempPathFactory, start: int, length: int, filling: bytes
) -> None:
    folder = tmp_path_factory.getbasetemp()
    data, ends = sample(folder)
    start %= len(data)
    path = folder / "replaced.gz"
    path.write_bytes(data[:start] + filling + data[start + length :])
    loaded = load_journal(path)
    if loaded is not None:
        begins = (0, *ends)
        outside = {
            number
            for number in range(1, 6)
            if ends[number] <= start or begins[number] >= start + length
        }
        assert outside <= loaded.entries.keys()


@given(data=st.binary(max_size=400), gzip_header=st.booleans())
@settings(max_examples=200)
def test_random_bytes_are_no_journal_and_no_crash(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, gzip_header: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "random.gz"
    path.write_bytes(b"\x1f\x8b\x08\x00" + data if gzip_header else data)
    assert load_journal(path) is None


@pytest.mark.parametrize(
    "line", [b"", b"null", b"{}", b'{"page":' + b"[" * 100_000, b'{"raw_text":"\xff"}']
)
def test_intact_members_that_hold_something_else_are_skipped(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "j.gz"
    Journal.start(path, HEADER, [entry(1)]).close()
    path.write_bytes(path.read_bytes() + gzip.compress(line))
    assert sorted(texts(load_journal(path))) == [1]
    path.write_bytes(gzip.compress(line))
    assert load_journal(path) is None


def test_a_decompression_bomb_is_skipped_within_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "j.gz"
    Journal.start(path, HEADER, [entry(1)]).close()
    after = tmp_path / "after.gz"
    Journal.start(after, HEADER, [entry(2)]).close()
    bomb = gzip.compress(bytes(200 << 20), compresslevel=1)
    path.write_bytes(path.read_bytes() + bomb + after.read_bytes())
    assert sorted(texts(load_journal(path))) == [1, 2]


def test_damage_is_told_in_the_log_and_health_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "j.gz"
    Journal.start(path, HEADER, [entry(1)]).close()
    with caplog.at_level(logging.WARNING):
        load_journal(path)
        assert not caplog.records
        path.write_bytes(path.read_bytes() + b"torn")
        load_journal(path)
    (record,) = caplog.records
    assert f"{path}: 4 of {path.stat().st_size} bytes are damaged" in record.getMessage()


APPEND_UNTIL_FULL = """
import resource, sys
from pathlib import Path
from dsocr_batch.errors import OutputNotWritable
from dsocr_batch.output.journal import Journal, load_journal
path = Path(sys.argv[1])
loaded = load_journal(path)
journal = Journal.start(path, loaded.header, loaded.entries.values())
limit = path.stat().st_size + 100
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
entry = loaded.entries[1]
try:
    for _ in range(1000):
        good_end = path.stat().st_size
        journal.append(entry)
except OutputNotWritable as error:
    print(error)
assert path.stat().st_size == good_end, (path.stat().st_size, good_end)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
journal.append(loaded.entries[2])
journal.close()
"""


def test_a_full_disk_cuts_the_journal_back_to_its_last_good_page(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "j.gz"
    Journal.start(path, HEADER, [entry(1), entry(2)]).close()
    done = subprocess.run(
        [sys.executable, "-c", APPEND_UNTIL_FULL, str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    assert "File too large" in done.stdout
    assert sorted(texts(load_journal(path))) == [1, 2]
    assert not caplog.records


def test_a_killed_run_loses_no_page_that_it_had_appended(tmp_path: Path) -> None:
    path = tmp_path / "j.gz"
    Journal.start(path, HEADER, [entry(1, "kept")]).close()
    code = """
import os, signal, sys
from pathlib import Path
from dsocr_batch.output.journal import Journal, load_journal
path = Path(sys.argv[1])
loaded = load_journal(path)
journal = Journal.start(path, loaded.header)
journal.append(loaded.entries[1])
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False, timeout=30)
    assert done.returncode == -9
    assert texts(load_journal(path)) == {1: "kept"}


def test_a_journal_whose_place_is_taken_by_a_folder_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / "j.gz").mkdir()
    with pytest.raises(OutputNotWritable):
        load_journal(tmp_path / "j.gz")
    with pytest.raises(OutputNotWritable):
        Journal.start(tmp_path / "j.gz", HEADER)
