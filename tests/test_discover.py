from __future__ import annotations

import os
import socket
import tempfile
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsocr_batch.discover import (
    Discovered,
    Document,
    IgnoredInput,
    discover,
    refuse_collisions,
)
from dsocr_batch.errors import InputMissing, UsageError
from dsocr_batch.options import InputOptions
from dsocr_batch.records import Mode
from privileges import as_nobody

NOBODY = 65534


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(found: Discovered) -> list[str]:
    return [document.relative for document in found.documents]


def reasons(found: Discovered) -> dict[str, str]:
    return {one.path.removeprefix(found.root + "/"): one.reason for one in found.ignored}


def in_dir(directory: Path, output_dir: Path, *, recursive: bool = False) -> Discovered:
    return discover(InputOptions(input_dir=directory, recursive=recursive), output_dir)


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    directory = tmp_path / "scans"
    directory.mkdir()
    return directory


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


# --- a directory ------------------------------------------------------------------------------


def test_files_directly_inside_are_found_sorted_and_absolute(scans: Path, out: Path) -> None:
    touch(scans, "b.pdf", "a.pdf", "c/d.pdf")
    found = in_dir(scans, out)
    assert found.root == str(scans)
    assert found.documents == (
        Document(path=f"{scans}/a.pdf", relative="a.pdf"),
        Document(path=f"{scans}/b.pdf", relative="b.pdf"),
    )
    assert found.ignored == (
        IgnoredInput(path=f"{scans}/c", reason="a sub-directory, read only with --recursive"),
    )


def test_recursive_descends(scans: Path, out: Path) -> None:
    touch(scans, "z.pdf", "a/b/c.pdf", "a/d.tiff")
    found = in_dir(scans, out, recursive=True)
    assert names(found) == ["a/b/c.pdf", "a/d.tiff", "z.pdf"]
    assert found.ignored == ()


def test_every_known_suffix_counts_in_any_case(scans: Path, out: Path) -> None:
    wanted = ["a.pdf", "b.PDF", "c.png", "d.Jpg", "e.JPEG", "f.tif", "g.TIFF", "h.i.pDf"]
    touch(scans, *wanted, "notes.txt", "pdf", "x.pdf.part", "y.")
    found = in_dir(scans, out)
    assert names(found) == sorted(wanted)
    assert set(reasons(found)) == {"notes.txt", "pdf", "x.pdf.part", "y."}
    assert set(reasons(found).values()) == {"not a PDF, PNG, JPEG or TIFF file"}


def test_hidden_names_are_passed_over(scans: Path, out: Path) -> None:
    touch(scans, "a.pdf", "._a.pdf", ".pdf", ".trash/b.pdf")
    found = in_dir(scans, out, recursive=True)
    assert names(found) == ["a.pdf"]
    assert set(reasons(found)) == {"._a.pdf", ".pdf", ".trash"}


@pytest.mark.parametrize(
    "recursive, expected", [(False, ["a.pdf"]), (True, ["a.pdf", "x.pdf/b.pdf"])]
)
def test_a_directory_named_like_a_pdf_is_reported(
    scans: Path, out: Path, recursive: bool, expected: list[str]
) -> None:
    touch(scans, "a.pdf", "x.pdf/b.pdf")
    found = in_dir(scans, out, recursive=recursive)
    assert names(found) == expected
    assert reasons(found) == {"x.pdf": "a directory, not a file"}


def test_links_to_files_are_read_and_other_links_are_not(
    scans: Path, out: Path, tmp_path: Path
) -> None:
    touch(tmp_path, "elsewhere/real.pdf")
    touch(scans, "sub/a.pdf")
    (scans / "link.pdf").symlink_to(tmp_path / "elsewhere/real.pdf")
    (scans / "broken.pdf").symlink_to("nowhere.pdf")
    (scans / "loop.pdf").symlink_to("loop.pdf")
    (scans / "elsewhere").symlink_to(tmp_path / "elsewhere")
    (scans / "sub/up").symlink_to(scans)
    found = in_dir(scans, out, recursive=True)
    assert found.documents == (
        Document(path=f"{scans}/link.pdf", relative="link.pdf"),
        Document(path=f"{scans}/sub/a.pdf", relative="sub/a.pdf"),
    )
    assert reasons(found) == {
        "broken.pdf": "a broken symbolic link",
        "loop.pdf": "a symbolic link that leads back to itself",
        "elsewhere": "a symbolic link to a directory, not followed",
        "sub/up": "a symbolic link to a directory, not followed",
    }


def test_pipes_sockets_and_links_to_devices_are_passed_over(
    scans: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(scans, "a.pdf")
    os.mkfifo(scans / "pipe.pdf")
    (scans / "device.pdf").symlink_to(os.devnull)
    monkeypatch.chdir(scans)  # the path of a socket is at most 107 bytes
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.pdf")
        found = in_dir(scans, out)
    assert names(found) == ["a.pdf"]
    assert set(reasons(found)) == {"pipe.pdf", "device.pdf", "socket.pdf"}
    assert set(reasons(found).values()) == {"not a regular file: a pipe, a socket or a device"}


def test_names_of_any_bytes_come_through(scans: Path, out: Path) -> None:
    raw = [b"caf\xe9.pdf", b"line\nbreak.pdf", b"\x1b[31m.pdf", "Übung.pdf".encode()]
    for name in raw:
        Path(os.fsdecode(os.fsencode(scans) + b"/" + name)).touch()
    found = in_dir(scans, out)
    assert {os.fsencode(relative) for relative in names(found)} == set(raw)
    assert all(Path(document.path).is_file() for document in found.documents)


def test_a_relative_directory_is_taken_from_the_working_directory(
    scans: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(scans, "sub/a.pdf")
    monkeypatch.chdir(scans / "sub")
    assert in_dir(Path("../sub/."), out).documents == (
        Document(path=f"{scans}/sub/a.pdf", relative="a.pdf"),
    )


def test_a_linked_root_is_followed_and_keeps_its_name(
    scans: Path, out: Path, tmp_path: Path
) -> None:
    touch(scans, "a.pdf")
    (tmp_path / "link").symlink_to(scans)
    assert in_dir(tmp_path / "link", out).documents == (
        Document(path=f"{tmp_path}/link/a.pdf", relative="a.pdf"),
    )


def test_results_inside_the_input_are_not_read_again(scans: Path, tmp_path: Path) -> None:
    touch(
        scans,
        "a.pdf",
        "deep/out/a_layout.pdf",
        "dsocr_clean/b.pdf",
        "sub/dsocr_grounded/c.pdf",
        "older/.dsocr/lock",
        "older/d.pdf",
    )
    (tmp_path / "same").symlink_to(scans)
    found = in_dir(scans, tmp_path / "same/deep/out", recursive=True)
    assert names(found) == ["a.pdf"]
    assert set(reasons(found)) == {"deep/out", "dsocr_clean", "sub/dsocr_grounded", "older"}
    assert set(reasons(found).values()) == {"results of a run, not inputs"}


@pytest.mark.parametrize("output", ["scans", ".", "link", "scans/sub/.."])
def test_an_output_that_is_or_holds_the_input_is_refused(
    scans: Path, tmp_path: Path, output: str
) -> None:
    touch(scans, "a.pdf", "sub/b.pdf")
    (tmp_path / "link").symlink_to(scans)
    with pytest.raises(UsageError, match=r"--output-dir .*/scans/dsocr_results"):
        in_dir(scans, tmp_path / output)


def test_the_output_of_a_run_is_refused_as_input(scans: Path, out: Path) -> None:
    touch(scans, ".dsocr/lock", "paper_layout.pdf")
    with pytest.raises(UsageError, match=r"is the output of a run \(it holds \.dsocr\)"):
        in_dir(scans, out)


def test_a_missing_directory_is_no_input(scans: Path, out: Path) -> None:
    with pytest.raises(InputMissing, match="no such directory"):
        in_dir(scans / "typo", out)


def test_a_file_as_directory_points_to_pdf(scans: Path, out: Path) -> None:
    touch(scans, "a.pdf")
    with pytest.raises(UsageError, match=r"For a single file: --pdf .*a\.pdf"):
        in_dir(scans / "a.pdf", out)


def test_no_document_says_what_was_seen(scans: Path, out: Path) -> None:
    touch(scans, "a.txt", "b.doc", "sub/c.pdf")
    with pytest.raises(
        InputMissing,
        match=r"2 x not a PDF, PNG, JPEG or TIFF file; 1 x a sub-directory, .* --recursive",
    ):
        in_dir(scans, out)


def test_an_empty_directory_says_so(scans: Path, out: Path) -> None:
    with pytest.raises(InputMissing, match=r"no document in it\. It is empty"):
        in_dir(scans, out)


@pytest.fixture
def locked() -> Iterator[Path]:
    """A tree that everyone may read but for ``locked/``; tmp_path itself is its owner's only."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        touch(root, "a.pdf", "locked/b.pdf")
        root.chmod(0o755)
        (root / "locked").chmod(0)
        yield root
        (root / "locked").chmod(0o700)


def test_a_locked_subdirectory_is_reported_and_the_rest_is_read(locked: Path, out: Path) -> None:
    with as_nobody():
        found = in_dir(locked, out, recursive=True)
    assert names(found) == ["a.pdf"]
    assert reasons(found) == {"locked": "a directory that cannot be listed: Permission denied"}


def test_a_locked_root_is_an_error(locked: Path, out: Path) -> None:
    with (
        as_nobody(),
        pytest.raises(InputMissing, match="cannot be listed: Permission denied"),
    ):
        in_dir(locked / "locked", out)


def test_files_are_listed_without_being_looked_at(locked: Path, out: Path) -> None:
    (locked / "locked").chmod(0o444)  # its names may be listed, its files not even be stat'ed
    with as_nobody():
        found = in_dir(locked, out, recursive=True)
    assert names(found) == ["a.pdf", "locked/b.pdf"]


parts = st.sampled_from(["a", "b", "c.pdf", "é", ".h"])
files = st.tuples(
    st.lists(parts, max_size=3), st.sampled_from(["1.pdf", "2.PNG", "3.txt", ".4.pdf"])
)


@settings(max_examples=25)
@given(st.lists(files, max_size=12), st.booleans())
def test_every_file_is_read_or_reported_with_or_below_its_directory(
    tree: list[tuple[list[str], str]], recursive: bool
) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        touch(root, "always.pdf", *("/".join([*folders, file]) for folders, file in tree))
        found = in_dir(root, Path("/nowhere/out"), recursive=recursive)
        read = {document.path for document in found.documents}
        reported = {one.path for one in found.ignored}
        assert names(found) == sorted(names(found))
        assert not read & reported
        for path in (path for path in root.rglob("*") if path.is_file()):
            assert str(path) in read or {str(path), *map(str, path.parents)} & reported


# --- names given one by one -------------------------------------------------------------------


def test_pdfs_mirror_their_place_below_the_common_parent(tmp_path: Path, out: Path) -> None:
    touch(tmp_path, "in/x/b.pdf", "in/x/y/a.png")
    pdfs = (tmp_path / "in/x/y/a.png", tmp_path / "in/x/b.pdf")
    found = discover(InputOptions(pdfs=pdfs), out)
    assert found.root == f"{tmp_path}/in/x"
    assert names(found) == ["b.pdf", "y/a.png"]


def test_a_single_pdf_has_its_own_folder_as_root(
    scans: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(scans, "deep/.a.pdf")
    monkeypatch.chdir(scans)
    found = discover(InputOptions(pdfs=(Path("deep/../deep/.a.pdf"),)), out)
    assert found.documents == (Document(path=f"{scans}/deep/.a.pdf", relative=".a.pdf"),)


def test_a_file_named_twice_is_read_once(scans: Path, out: Path) -> None:
    touch(scans, "a.pdf")
    found = discover(InputOptions(pdfs=(scans / "a.pdf", scans / "../scans//a.pdf")), out)
    assert names(found) == ["a.pdf"]
    assert reasons(found) == {"a.pdf": "named twice"}


@pytest.mark.parametrize(
    "name, error, message",
    [
        ("typo.pdf", InputMissing, "no such file"),
        ("dir.pdf", UsageError, r"is a directory\. To read what is in it: --input-dir .*dir\.pdf"),
        ("notes.txt", UsageError, "not a PDF, PNG, JPEG or TIFF file"),
        ("pipe.pdf", UsageError, "not a regular file"),
        ("loop.pdf", InputMissing, "cannot be read: Too many levels of symbolic links"),
        ("notes.txt/a.pdf", InputMissing, "cannot be read: Not a directory"),
    ],
)
def test_a_pdf_that_is_none_is_an_error(
    scans: Path, out: Path, name: str, error: type[Exception], message: str
) -> None:
    touch(scans, "dir.pdf/a.pdf", "notes.txt")
    os.mkfifo(scans / "pipe.pdf")
    (scans / "loop.pdf").symlink_to("loop.pdf")
    with pytest.raises(error, match=message):
        discover(InputOptions(pdfs=(scans / name,)), out)


def test_a_list_may_have_crlf_comments_blank_lines_and_a_mark(scans: Path, out: Path) -> None:
    touch(scans, "a.pdf", "sub/b c.pdf", "#d.pdf", "e.txt")
    (scans / os.fsdecode(b"caf\xe9.pdf")).touch()
    listing = scans / "list.txt"
    absolute = os.fsencode(scans / "sub/b c.pdf")
    listing.write_bytes(
        b"\xef\xbb\xbf# made by hand\r\na.pdf\r\n\r\n  \n" + absolute + b"\n"
        b"caf\xe9.pdf\n./#d.pdf\nmissing.pdf\na.pdf\ne.txt"
    )
    found = discover(InputOptions(input_list=listing), out)
    expected = [b"#d.pdf", b"a.pdf", b"caf\xe9.pdf", b"missing.pdf", b"sub/b c.pdf"]
    assert [os.fsencode(name) for name in names(found)] == expected
    assert reasons(found) == {
        "a.pdf": "named twice",
        "e.txt": "not a PDF, PNG, JPEG or TIFF file",
    }


def test_relative_entries_are_below_the_folder_of_the_list(
    scans: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(scans, "a.pdf", "lists/x")
    (scans / "lists/today.txt").write_text("../a.pdf\n")
    monkeypatch.chdir(tmp_path)
    found = discover(InputOptions(input_list=Path("scans/lists/today.txt")), out)
    assert found.documents == (Document(path=f"{scans}/a.pdf", relative="a.pdf"),)


def test_relative_entries_of_a_pipe_are_below_the_working_directory(
    scans: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(scans, "a.pdf")
    monkeypatch.chdir(scans)
    read_end, write_end = os.pipe()
    os.write(write_end, b"a.pdf\n")
    os.close(write_end)
    found = discover(InputOptions(input_list=Path(f"/dev/fd/{read_end}")), out)
    os.close(read_end)
    assert found.documents == (Document(path=f"{scans}/a.pdf", relative="a.pdf"),)


def test_a_list_goes_together_with_pdfs(tmp_path: Path, out: Path) -> None:
    touch(tmp_path, "in/a.pdf", "in/b/c.pdf")
    (tmp_path / "list").write_text("in/b/c.pdf\n")
    options = InputOptions(pdfs=(tmp_path / "in/a.pdf",), input_list=tmp_path / "list")
    assert names(discover(options, out)) == ["a.pdf", "b/c.pdf"]


def test_results_in_a_list_are_passed_over(scans: Path) -> None:
    touch(scans, "a.pdf", "out/a_layout.pdf")
    (scans / "list").write_text("a.pdf\nout/a_layout.pdf\n")
    found = discover(InputOptions(input_list=scans / "list"), scans / "out")
    assert names(found) == ["a.pdf"]
    assert reasons(found) == {"out/a_layout.pdf": "results of a run, not inputs"}


def test_a_list_for_another_folder_is_an_error(scans: Path, out: Path) -> None:
    (scans / "list").write_text("".join(f"{number}.pdf\n" for number in range(30)))
    with pytest.raises(InputMissing, match=r"the first is .*scans/0\.pdf\. Relative entries"):
        discover(InputOptions(input_list=scans / "list"), out)


@pytest.mark.parametrize(
    "content, error, message",
    [
        (b"a.pdf\0b.pdf\0", UsageError, r"line 1: holds a zero byte.*not find -print0"),
        ("a.pdf\n".encode("utf-16"), UsageError, "UTF-8 text file"),
        (b"# nothing\n\n", InputMissing, "no document in it"),
        (None, InputMissing, "no such file"),
    ],
)
def test_a_list_that_is_none_is_an_error(
    scans: Path, out: Path, content: bytes | None, error: type[Exception], message: str
) -> None:
    touch(scans, "a.pdf")
    if content is not None:
        (scans / "list").write_bytes(content)
    with pytest.raises(error, match=message):
        discover(InputOptions(input_list=scans / "list"), out)


def test_a_directory_as_list_points_to_input_dir(scans: Path, out: Path) -> None:
    with pytest.raises(UsageError, match="To read what is in it: --input-dir"):
        discover(InputOptions(input_list=scans), out)


def test_a_pdf_into_its_own_folder_is_refused(scans: Path) -> None:
    touch(scans, "a.pdf")
    with pytest.raises(UsageError, match="could overwrite them"):
        discover(InputOptions(pdfs=(scans / "a.pdf",)), scans)


def test_no_source_teaches_the_three(out: Path) -> None:
    with pytest.raises(UsageError, match=r"--input-dir.*--pdf.*--input-list"):
        discover(InputOptions(), out)


@pytest.mark.parametrize(
    "others",
    [
        InputOptions(input_dir=Path("x"), pdfs=(Path("a.pdf"),)),
        InputOptions(input_dir=Path("x"), input_list=Path("list")),
    ],
)
def test_a_directory_excludes_the_other_sources(out: Path, others: InputOptions) -> None:
    with pytest.raises(UsageError, match="does not go with"):
        discover(others, out)


# --- names in messages ------------------------------------------------------------------------


def test_messages_never_carry_control_characters(scans: Path, out: Path) -> None:
    touch(scans, "bad\x1b[2J\n.pdf/x")
    with pytest.raises(UsageError) as caught:
        discover(InputOptions(pdfs=(scans / "bad\x1b[2J\n.pdf",)), out)
    assert r"bad\x1b[2J\x0a.pdf is a directory" in str(caught.value)
    assert str(caught.value).isprintable()


# --- collisions -------------------------------------------------------------------------------


def documents(*relatives: str) -> tuple[Document, ...]:
    return tuple(Document(path=f"/in/{relative}", relative=relative) for relative in relatives)


NFC = unicodedata.normalize("NFC", "é")
NFD = unicodedata.normalize("NFD", "é")


@pytest.mark.parametrize(
    "one, other",
    [
        ("a.pdf", "a.png"),
        ("A.pdf", "a.PDF"),
        ("Sub/a.pdf", "sub/a.pdf"),
        (f"{NFC}.pdf", f"{NFD}.pdf"),
        (f"{NFC.upper()}.pdf", f"{NFD}.pdf"),
        ("STRASSE.pdf", "straße.pdf"),
        ("a.md/x.pdf", "a.pdf"),
        ("a.JSON/deep/x.pdf", "a.pdf"),
        ("a_layout.pdf/x.pdf", "a.pdf"),
        ("a_assets/page-1-roi-x.pdf", "a.pdf"),
    ],
)
@pytest.mark.parametrize("mode", Mode)
def test_inputs_that_share_an_output_are_refused(one: str, other: str, mode: Mode) -> None:
    for pair in (documents(one, other), documents(other, one)):
        with pytest.raises(UsageError) as caught:
            refuse_collisions(pair, mode)
        assert one in str(caught.value)
        assert other in str(caught.value)
        assert "Rename one" in str(caught.value)


@pytest.mark.parametrize(
    "one, other",
    [
        ("paper.pdf", "paper_grounded.pdf"),
        ("Paper_Grounded.tif", "paper.pdf"),
        ("paper.pdf", "paper_grounded.md/x.pdf"),
    ],
)
def test_derived_names_clash_in_grounded_mode_only(one: str, other: str) -> None:
    refuse_collisions(documents(one, other), Mode.CLEAN)
    with pytest.raises(UsageError, match=r"(?s)share an output.*--mode clean"):
        refuse_collisions(documents(one, other), Mode.GROUNDED)


@pytest.mark.parametrize("mode", Mode)
def test_inputs_with_outputs_of_their_own_pass(mode: Mode) -> None:
    refuse_collisions(
        documents(
            "a.pdf",
            "b/a.pdf",
            "a.pdf.pdf",
            "a_grounded.json/x.pdf",
            "other_grounded.pdf",
            "_grounded.pdf",
            "c.md/x.pdf",
            "a_layout.pdf",
            "a_assets/page-0001.pdf",
            "a_assets/deep/page-1-roi-1.pdf",
            f"{NFC}.pdf",
            "e.pdf",
        ),
        mode,
    )


def test_five_pairs_are_named_and_the_rest_counted() -> None:
    pairs = [f"{number}.{suffix}" for number in range(8) for suffix in ("pdf", "png")]
    with pytest.raises(
        UsageError, match=r"(?s)0\.pdf and 0\.png.*4\.png\n  and 3 more\n"
    ) as caught:
        refuse_collisions(documents(*pairs), Mode.CLEAN)
    assert "5.pdf" not in str(caught.value)


def test_clashing_names_are_shown_safely() -> None:
    with pytest.raises(UsageError, match=r"a\\x0ab\.pdf and a\\x0ab\.png"):
        refuse_collisions(documents("a\nb.pdf", "a\nb.png"), Mode.CLEAN)
