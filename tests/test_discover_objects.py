"""Which objects a run reads, from a real S3 server on loopback."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsocr_batch.discover import Discovered, discover, source_stat
from dsocr_batch.errors import InputMissing, UsageError
from dsocr_batch.objects.records import Location, parse_location
from dsocr_batch.options import InputOptions
from s3_server import BUCKET, Fault, S3Server

IN = f"s3://{BUCKET}/in"
SUBDIRECTORY = "a sub-directory, read only with --recursive"
RESULTS = "results of a run, not inputs"


def put(s3: S3Server, *keys: str) -> None:
    for key in keys:
        s3.put(f"in/{key}", b"x")


def below(output_dir: Location, *, recursive: bool = True, of: str = IN) -> Discovered:
    options = InputOptions(input_dir=parse_location(of), recursive=recursive)
    return discover(options, output_dir)


def named(output_dir: Location, *pdfs: str, input_list: Location | None = None) -> Discovered:
    urls = tuple(parse_location(pdf) for pdf in pdfs)
    return discover(InputOptions(pdfs=urls, input_list=input_list), output_dir)


def names(found: Discovered) -> list[str]:
    return [document.relative for document in found.documents]


def reasons(found: Discovered) -> dict[str, str]:
    return {one.path.removeprefix(f"{IN}/"): one.reason for one in found.ignored}


def test_a_prefix_is_read_like_the_same_tree_on_a_disk(
    s3: S3Server, tmp_path: Path, out: Path
) -> None:
    tree = ["b.pdf", "a.PDF", "scan.tiff", ".x.pdf", "notes.txt", "sub/c.pdf", "sub/deep/d.png"]
    tree += [".hidden/e.pdf", "dsocr_clean/f.pdf", "done/.dsocr/settings.json", "done/g.pdf"]
    tree += ["!early/h.pdf", "Ümlaut/ß.pdf", "sub/.y.pdf", "folder.pdf/i.pdf"]
    for name in tree:
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    put(s3, *tree)
    for recursive in (True, False):
        on_disk = discover(InputOptions(input_dir=tmp_path / "in", recursive=recursive), out)
        objects = below(out, recursive=recursive)
        assert names(objects) == names(on_disk)
        root = f"{tmp_path}/in/"
        expected = {one.path.removeprefix(root): one.reason for one in on_disk.ignored}
        assert reasons(objects) == expected


def test_a_document_knows_what_the_listing_told(s3: S3Server, out: Path) -> None:
    s3.put("in/a.pdf", b"four")
    [document] = below(out).documents
    assert document.path == f"{IN}/a.pdf"
    size, mtime_ns = source_stat(document)
    assert size == 4
    assert mtime_ns > 0
    assert s3.asked("HEAD", ".+") == []
    assert s3.asked("GET", ".+") == []


def test_keys_that_no_file_could_have_are_ignored_with_the_reason(s3: S3Server, out: Path) -> None:
    odd = ["a//b.pdf", "../up.pdf", "a/./b.pdf", "line\nbreak.pdf", "x" * 260 + "/a.pdf"]
    put(s3, "good.pdf", *odd)
    found = below(out)
    assert names(found) == ["good.pdf"]
    assert len(found.ignored) == len(odd)
    told = reasons(found)
    assert "empty segment" in told["a//b.pdf"]
    assert ".." in told["../up.pdf"]
    assert "control character" in told["line\nbreak.pdf"]
    assert "longer than a file's name" in told["x" * 260 + "/a.pdf"]


def test_large_folders_that_are_passed_over_are_not_listed_to_their_end(
    s3: S3Server, out: Path
) -> None:
    put(s3, *(f"dsocr_clean/{number:05d}.json" for number in range(4100)), "z.pdf")
    assert names(below(out)) == ["z.pdf"]
    assert len(s3.asked("GET", "")) <= 3


def test_an_output_below_the_input_is_passed_over(s3: S3Server) -> None:
    put(s3, "a.pdf", "results/a.pdf")
    found = below(parse_location(f"{IN}/results"))
    assert names(found) == ["a.pdf"]
    assert reasons(found) == {"results": RESULTS}


@pytest.mark.parametrize("output", [IN, f"s3://{BUCKET}"])
def test_an_output_around_the_input_is_refused(s3: S3Server, output: str) -> None:
    put(s3, "a.pdf")
    with pytest.raises(UsageError, match="results would mix with inputs"):
        below(parse_location(output))


def test_the_output_of_a_run_is_no_input(s3: S3Server, out: Path) -> None:
    put(s3, ".dsocr/settings.json", "a.pdf")
    with pytest.raises(UsageError, match="is the output of a run"):
        below(out)


def test_a_prefix_without_documents_says_what_was_ignored(s3: S3Server, out: Path) -> None:
    put(s3, "a.txt", "sub/b.pdf")
    with pytest.raises(InputMissing, match="1 x a sub-directory, read only with --recursive"):
        below(out, recursive=False)


def test_a_bucket_that_is_not_there_is_missing_input(s3: S3Server, out: Path) -> None:
    del s3
    with pytest.raises(InputMissing, match=r"^--input-dir: s3://nowhere: there is no such bucket"):
        below(out, of="s3://nowhere/in")
    with pytest.raises(InputMissing, match=r"^the inputs: s3://nowhere: there is no such bucket"):
        named(out, "s3://nowhere/a.pdf")


def test_a_listing_that_is_denied_is_missing_input_with_the_right_that_is_needed(
    s3: S3Server, out: Path
) -> None:
    s3.fault(Fault(key="", status=403, times=99))
    with pytest.raises(InputMissing, match="s3:ListBucket"):
        below(out)


def test_documents_whose_outputs_would_have_too_long_keys_are_ignored_in_their_order(
    s3: S3Server,
) -> None:
    deep = "/".join(["x" * 100] * 9)
    put(s3, "a.txt", "b.pdf", f"{deep}/c.pdf", "z.txt")
    found = below(parse_location(f"s3://{BUCKET}/{'o' * 100}"))
    assert names(found) == ["b.pdf"]
    assert [one.path for one in found.ignored] == sorted(one.path for one in found.ignored)
    told = reasons(found)
    assert told.keys() == {"a.txt", f"{deep}/c.pdf", "z.txt"}
    assert told[f"{deep}/c.pdf"] == "its outputs would have a key of more than 1024 bytes"


@pytest.mark.parametrize("way", ["--input-dir", "--input-list", "--pdf"])
def test_an_output_whose_keys_would_all_be_too_long_leaves_nothing_to_read(
    s3: S3Server, tmp_path: Path, way: str
) -> None:
    put(s3, "a.pdf")
    (tmp_path / "list.txt").write_text(f"{IN}/a.pdf\n")
    output = parse_location(f"s3://{BUCKET}/{'/'.join(['o' * 200] * 5)}")
    with pytest.raises(InputMissing, match=r"1 x its outputs would have a key of more than 1024"):
        match way:
            case "--input-dir":
                below(output)
            case "--input-list":
                named(output, input_list=tmp_path / "list.txt")
            case _:
                named(output, f"{IN}/a.pdf")


# --- keys given one by one --------------------------------------------------------------------


def test_single_objects_are_named_below_their_common_parent(s3: S3Server, out: Path) -> None:
    put(s3, "x/a.pdf", "x/y/b.pdf", "x/c.pdf")
    found = named(out, f"{IN}/x/a.pdf", f"{IN}/x/y/b.pdf")
    assert found.root == f"{IN}/x"
    assert names(found) == ["a.pdf", "y/b.pdf"]
    assert source_stat(found.documents[0]) == source_stat(below(out, of=f"{IN}/x").documents[0])


def test_a_single_object_that_is_not_there_is_missing_input(s3: S3Server, out: Path) -> None:
    put(s3, "a.pdf")
    with pytest.raises(InputMissing, match="no such object"):
        named(out, f"{IN}/a.pdf", f"{IN}/b.pdf")
    with pytest.raises(UsageError, match="by its name"):
        named(out, f"{IN}/a.txt")


@pytest.mark.parametrize("where", ["disk", "bucket"])
def test_a_list_may_name_objects_and_lie_anywhere(
    s3: S3Server, tmp_path: Path, out: Path, where: str
) -> None:
    put(s3, "a.pdf", "sub/b.pdf", "c.txt")
    lines = f"\ufeff# scans\r\n{IN}/a.pdf\r\n\r\n{IN}/sub/b.pdf\n{IN}/gone.pdf\n{IN}/c.txt\n"
    lines += f"{IN}/a.pdf\n"
    (tmp_path / "list.txt").write_text(lines, encoding="utf-8", newline="")
    s3.put("lists/list.txt", lines.encode())
    places = {"disk": tmp_path / "list.txt", "bucket": f"s3://{BUCKET}/lists/list.txt"}
    found = named(out, input_list=parse_location(str(places[where])))
    assert names(found) == ["a.pdf", "sub/b.pdf"]
    assert reasons(found) == {
        "gone.pdf": "no such object",
        "c.txt": "not a PDF, PNG, JPEG or TIFF file",
        "a.pdf": "named twice",
    }


def test_relative_names_of_a_list_in_a_bucket_are_below_its_own_prefix(
    s3: S3Server, out: Path
) -> None:
    put(s3, "a.pdf", "sub/b.pdf")
    s3.put("in/list.txt", b"a.pdf\nsub/b.pdf\n")
    assert names(named(out, input_list=parse_location(f"{IN}/list.txt"))) == ["a.pdf", "sub/b.pdf"]


def test_relative_names_of_a_list_in_a_bucket_lead_where_they_lead_on_a_disk(
    s3: S3Server, tmp_path: Path, out: Path
) -> None:
    lines = "./a.pdf\nsub//b.pdf\nsub/./../c.pdf\n../up.pdf\nsub/b.pdf/\n.\n"
    for key in ("in/a.pdf", "in/sub/b.pdf", "in/c.pdf", "up.pdf"):
        s3.put(key, b"x")
        (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / key).write_bytes(b"x")
    s3.put("in/list.txt", lines.encode())
    (tmp_path / "in/list.txt").write_text(lines)
    on_disk = named(out, input_list=tmp_path / "in/list.txt")
    objects = named(out, input_list=parse_location(f"{IN}/list.txt"))
    assert names(objects) == names(on_disk) == ["in/a.pdf", "in/c.pdf", "in/sub/b.pdf", "up.pdf"]
    assert reasons(objects) == {
        one.path.removeprefix(f"{tmp_path}/in/").replace(
            str(tmp_path), f"s3://{BUCKET}"
        ): one.reason
        for one in on_disk.ignored
    }


@pytest.mark.parametrize("entry", ["..", "../../x.pdf", "sub/../../../in/a.pdf"])
def test_a_list_that_leads_out_of_its_bucket_was_written_for_another_folder(
    s3: S3Server, out: Path, entry: str
) -> None:
    place = "list.txt" if entry == ".." else "in/list.txt"
    s3.put(place, f"a.pdf\n{entry}\n".encode())
    with pytest.raises(InputMissing, match=rf"{place}: .*{entry} leads out of the bucket"):
        named(out, input_list=parse_location(f"s3://{BUCKET}/{place}"))


def test_listed_keys_that_no_file_or_request_could_have_are_ignored_with_the_reason(
    s3: S3Server, out: Path
) -> None:
    put(s3, "a.pdf")
    odd = [b"line\tbreak.pdf", b"latin-\xe9.pdf", b"x" * 260 + b"/b.pdf", b"y/" * 520 + b"c.pdf"]
    s3.put("in/list.txt", b"\n".join([b"a.pdf", *odd]))
    found = named(out, input_list=parse_location(f"{IN}/list.txt"))
    assert names(found) == ["a.pdf"]
    assert len(found.ignored) == len(odd)
    told = reasons(found)
    assert "control character" in told["line\tbreak.pdf"]
    assert "not UTF-8" in told["latin-\udce9.pdf"]
    assert "longer than a file's name" in told["x" * 260 + "/b.pdf"]
    assert "1024 bytes" in told["y/" * 520 + "c.pdf"]


@pytest.mark.parametrize(
    "key, message",
    [("a//b.pdf", "empty segment"), ("x" * 260 + ".pdf", "longer than a file's name")],
)
def test_a_single_object_that_no_file_could_be_is_a_usage_error(
    s3: S3Server, out: Path, key: str, message: str
) -> None:
    put(s3, key)
    with pytest.raises(UsageError, match=message):
        named(out, f"{IN}/{key}")


def test_files_and_objects_are_not_read_in_one_run(s3: S3Server, tmp_path: Path, out: Path) -> None:
    put(s3, "a.pdf")
    (tmp_path / "b.pdf").write_bytes(b"x")
    with pytest.raises(UsageError, match="read them in two runs"):
        named(out, f"{IN}/a.pdf", str(tmp_path / "b.pdf"))
    with pytest.raises(UsageError, match="each bucket in a run of its own"):
        named(out, f"{IN}/a.pdf", "s3://other/b.pdf")


def test_a_list_that_is_not_there_is_missing_input(s3: S3Server, out: Path) -> None:
    del s3
    with pytest.raises(InputMissing, match="no such object"):
        named(out, input_list=parse_location(f"{IN}/list.txt"))


def test_a_folder_that_holds_the_last_key_that_there_can_be_is_passed_over(s3: S3Server) -> None:
    put(s3, "sub/a.pdf", "sub/\U0010ffff\U0010ffff.pdf")
    with pytest.raises(InputMissing, match="1 x a sub-directory"):
        below(parse_location("elsewhere"), recursive=False)
