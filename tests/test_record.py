from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dsocr_batch.errors import OutputNotWritable
from dsocr_batch.output.record import (
    DamagedError,
    outputs_intact,
    read_record,
    write_record,
)
from dsocr_batch.output.write import output_file, write_atomically
from dsocr_batch.records import (
    Attempt,
    DocumentRecord,
    DocumentState,
    FailureClass,
    FinishReason,
    Flag,
    PageRecord,
    PageState,
    PageTiming,
    ReasonCode,
    Region,
    Source,
)

RECORD = DocumentRecord(
    source=Source(path="sub/paper.pdf", bytes=10, mtime_ns=1_700_000_000_000_000_000, sha256="ab"),
    settings_digest="cd",
    postprocess_version=1,
    engine="scripted",
    model="m",
    model_revision="r",
    dsocr_batch="0.1.0",
    finished_at="2025-01-01T00:00:00+00:00",
    state=DocumentState.PARTIAL,
    page_count=2,
    counters={"pages_ok": 1, "pages_failed": 1},
    pages=(
        PageRecord(
            page_number=1,
            state=PageState.OK,
            flags=(Flag.ROTATED,),
            md_start=0,
            md_end=12,
            regions=(Region(label="Überschrift", box=(0, 1, 500, 999)),),
            width_pt=595.2,
            confidence=0.5,
            attempts=(Attempt(finish_reason=FinishReason.STOP, output_tokens=7, engine_s=0.25),),
        ),
        PageRecord(
            page_number=2,
            state=PageState.FAILED,
            reason_code=ReasonCode.RENDER_TIMEOUT,
            reason="took more than 60 s",
            failure_class=FailureClass.INPUT,
        ),
    ),
)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_record(tmp_path / "sub/paper.json", RECORD)
    assert read_record(tmp_path / "sub/paper.json") == RECORD


def test_the_file_is_readable_json_in_utf8(tmp_path: Path) -> None:
    write_record(tmp_path / "paper.json", RECORD)
    text = (tmp_path / "paper.json").read_text("utf-8")
    assert text.endswith("\n}\n")
    assert '\n  "state": "partial",\n' in text
    assert "Überschrift" in text
    assert json.loads(text)["schema_version"] == 1


def test_no_record_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert read_record(tmp_path / "paper.json") is None
    assert read_record(tmp_path / "file/paper.json") is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"null",
        b'{"title": "metadata of another program"}',
        b"\xff\xfe\x00",
        b'{"a": ' + b"[" * 200_000,
    ],
)
def test_what_is_not_a_record_is_damaged_and_not_an_error_of_the_run(
    tmp_path: Path, data: bytes
) -> None:
    (tmp_path / "paper.json").write_bytes(data)
    with pytest.raises(DamagedError):
        read_record(tmp_path / "paper.json")


def test_another_schema_is_told_apart(tmp_path: Path) -> None:
    write_record(tmp_path / "paper.json", replace(RECORD, schema_version=2))
    with pytest.raises(DamagedError, match="schema_version 2"):
        read_record(tmp_path / "paper.json")


def test_a_record_without_all_its_pages_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        write_record(tmp_path / "paper.json", replace(RECORD, page_count=3))
    assert not (tmp_path / "paper.json").exists()


def test_a_document_that_could_not_be_opened_has_a_record_without_pages(tmp_path: Path) -> None:
    record = replace(RECORD, state=DocumentState.FAILED, page_count=None, pages=())
    write_record(tmp_path / "paper.json", record)
    assert read_record(tmp_path / "paper.json") == record


def test_a_lost_page_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "paper.json"
    write_record(path, RECORD)
    path.write_bytes(path.read_bytes().replace(b'"page_number":2', b'"page_number":3'))
    with pytest.raises(DamagedError):
        read_record(path)


def test_a_page_count_beyond_all_memory_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "paper.json"
    write_record(path, RECORD)
    path.write_bytes(path.read_bytes().replace(b'"page_count": 2', b'"page_count": 999999999999'))
    with pytest.raises(DamagedError):
        read_record(path)


def test_a_record_that_cannot_be_read_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / "paper.json").mkdir()
    with pytest.raises(OutputNotWritable):
        read_record(tmp_path / "paper.json")


def test_a_file_name_in_a_reason_cannot_make_a_record_unwritable(tmp_path: Path) -> None:
    failed = replace(RECORD.pages[1], reason="cannot open caf\udce9.pdf")
    write_record(tmp_path / "paper.json", replace(RECORD, pages=(RECORD.pages[0], failed)))
    record = read_record(tmp_path / "paper.json")
    assert record is not None
    assert record.pages[1].reason == r"cannot open caf\udce9.pdf"


def without_times(record: DocumentRecord) -> DocumentRecord:
    """Return a record without what may differ between two runs."""
    pages = tuple(replace(page, timing=PageTiming(), attempts=()) for page in record.pages)
    source = replace(record.source, mtime_ns=0)
    return replace(record, finished_at="", source=source, pages=pages)


@given(position=st.integers(min_value=0), value=st.integers(0, 255))
@settings(max_examples=300)
@example(position=404, value=128)
def test_a_changed_byte_is_damage_unless_it_is_in_a_time(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "flipped.json"
    write_record(path, RECORD)
    data = bytearray(path.read_bytes())
    data[position % len(data)] = value
    path.write_bytes(data)
    try:
        record = read_record(path)
    except DamagedError:
        return
    assert record is not None
    assert without_times(record) == without_times(RECORD)


def test_a_record_may_be_formatted_anew(tmp_path: Path) -> None:
    path = tmp_path / "paper.json"
    write_record(path, RECORD)
    path.write_text(json.dumps(json.loads(path.read_bytes()), sort_keys=True), encoding="utf-8")
    assert read_record(path) == RECORD


def test_the_checksum_does_not_tell_two_runs_apart(tmp_path: Path) -> None:
    checksums = set()
    for number, second in enumerate(("00", "01")):
        path = tmp_path / f"{number}.json"
        write_record(path, replace(RECORD, finished_at=f"2025-01-01T00:00:{second}+00:00"))
        checksums.add(json.loads(path.read_bytes())["checksum"])
    assert len(checksums) == 1


def test_outputs_are_intact_only_while_each_has_its_size(tmp_path: Path) -> None:
    markdown = tmp_path / "caf\udce9.md"
    write_atomically(markdown, b"text")
    record = replace(RECORD, outputs=(output_file(markdown, b"text", tmp_path),))
    assert outputs_intact(record, tmp_path)
    markdown.write_bytes(b"tex")
    assert not outputs_intact(record, tmp_path)
    markdown.unlink()
    assert not outputs_intact(record, tmp_path)


def test_an_output_path_that_no_file_can_have_is_not_intact(tmp_path: Path) -> None:
    output = replace(output_file(tmp_path / "a.md", b"", tmp_path), path=r"\x00")
    assert not outputs_intact(replace(RECORD, outputs=(output,)), tmp_path)
