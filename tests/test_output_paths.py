from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsocr_batch.output.paths import (
    MAX_NAME_BYTES,
    document_paths,
    output_stem,
    temp_path,
)

OUT = Path("out")

file_names = st.binary(min_size=1, max_size=255).map(os.fsdecode)


def test_the_outputs_of_a_document_mirror_its_place_in_the_input() -> None:
    paths = document_paths(OUT, "sub/paper.pdf")
    assert paths.markdown == OUT / "sub/paper.md"
    assert paths.grounded == OUT / "sub/paper_grounded.md"
    assert paths.record == OUT / "sub/paper.json"
    assert paths.layout == OUT / "sub/paper_layout.pdf"
    assert paths.assets_dir == OUT / "sub/paper_assets"
    # printf sub/paper.pdf | sha256sum; the next version must find the journals of this one
    assert paths.journal == OUT / ".dsocr/pages/26/2640316dd92c7a5e3e08dd42a8eccc0e.jsonl.gz"


@pytest.mark.parametrize(
    "relative",
    [
        "/etc/passwd",
        "../paper.pdf",
        "sub/../../paper.pdf",
        "sub/..",
        "..",
        ".",
        "./paper.pdf",
        "",
        "sub//paper.pdf",
        "sub/",
        "nul\0.pdf",
        ".dsocr/settings.pdf",
        ".DSOCR/settings.pdf",
    ],
)
def test_a_path_that_could_lead_out_of_the_input_is_a_programming_error(relative: str) -> None:
    with pytest.raises(ValueError):
        document_paths(OUT, relative)


@given(relative=st.lists(file_names, min_size=1, max_size=3).map("/".join))
@settings(max_examples=200)
def test_no_file_name_leads_out_of_the_output_directory(relative: str) -> None:
    try:
        paths = document_paths(OUT, relative)
    except ValueError:
        return
    for path in (paths.markdown, paths.record, paths.assets_dir, paths.journal):
        assert ".." not in path.parts
        assert path.relative_to(OUT).parts
        assert Path(os.path.normpath(path)) == path


@pytest.mark.parametrize("name", ["line\nbreak.pdf", "-rf.pdf", "a\\b.pdf", "caf\udce9.pdf", "…"])
def test_a_hostile_name_can_be_written_and_read_back(tmp_path: Path, name: str) -> None:
    path = document_paths(tmp_path, name).grounded
    path.write_bytes(b"x")
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "name, stem",
    [
        ("paper.pdf", "paper"),
        ("scan.tar.PDF", "scan.tar"),
        (".pdf", ".pdf"),
        ("...pdf", "...pdf"),
        ("no suffix", "no suffix"),
        (" .pdf", " "),
    ],
)
def test_the_stem_is_the_name_without_its_last_suffix(name: str, stem: str) -> None:
    assert output_stem(name) == stem


@given(name=file_names.filter(lambda name: "/" not in name and "\0" not in name))
@settings(max_examples=200)
def test_every_output_name_fits_the_file_system_even_while_it_is_written(name: str) -> None:
    stem = output_stem(name)
    for suffix in (".md", "_grounded.md", ".json", "_layout.pdf", "_assets"):
        temp = temp_path(OUT / f"{stem}{suffix}")
        assert len(os.fsencode(temp.name)) <= MAX_NAME_BYTES


def test_a_long_name_is_cut_between_characters_and_stays_unique(tmp_path: Path) -> None:
    first, second = ("é" * 120 + f"{number}.pdf" for number in (1, 2))
    stems = {output_stem(first), output_stem(second)}
    assert len(stems) == 2
    for stem in stems:
        assert stem.startswith("é" * 100)
        stem.encode("utf-8")
        temp_path(tmp_path / f"{stem}_grounded.md").write_bytes(b"")


def test_documents_with_like_names_have_journals_of_their_own() -> None:
    names = ["a.pdf", "A.pdf", "a.png", "caf\udce9.pdf", "café.pdf", "sub/a.pdf"]
    assert len({document_paths(OUT, name).journal for name in names}) == len(names)
