from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dsocr_batch.errors import ExitStatus, OutputNotWritable
from dsocr_batch.output.write import (
    _create_in_place,
    accessing,
    create_exclusively,
    open_atomically,
    output_file,
    remove_output,
    write_atomically,
)
from privileges import as_nobody


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_file_is_written_with_its_folders_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a/b/paper.md"
    write_atomically(path, b"first")
    write_atomically(path, b"second")
    assert path.read_bytes() == b"second"
    assert names(path.parent) == ["paper.md"]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_atomically(tmp_path / "paper.md", b"x")
    finally:
        os.umask(old)
    assert (tmp_path / "paper.md").stat().st_mode & 0o777 == 0o640


def test_a_leftover_of_a_killed_run_is_replaced(tmp_path: Path) -> None:
    (tmp_path / ".paper.md.tmp").write_bytes(b"half of an older, much longer text")
    (tmp_path / ".paper.md.tmp").chmod(0o400)
    write_atomically(tmp_path / "paper.md", b"x")
    assert names(tmp_path) == ["paper.md"]
    assert (tmp_path / "paper.md").read_bytes() == b"x"


def test_a_planted_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    for name in (".paper.md.tmp", "paper.md"):
        (tmp_path / name).symlink_to(victim)
    write_atomically(tmp_path / "paper.md", b"x")
    assert victim.read_bytes() == b"precious"
    assert not (tmp_path / "paper.md").is_symlink()


WRITE_UNDER_A_LIMIT = """
import resource, sys
from pathlib import Path
from dsocr_batch.errors import OutputNotWritable
from dsocr_batch.output.write import write_atomically
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_atomically(Path(sys.argv[1]), bytes(5000))
except OutputNotWritable as error:
    print(error)
"""


def test_a_full_disk_leaves_the_old_file_and_no_temporary_one(tmp_path: Path) -> None:
    path = tmp_path / "paper.md"
    path.write_bytes(b"old")
    done = subprocess.run(
        [sys.executable, "-c", WRITE_UNDER_A_LIMIT, str(path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert str(path) in done.stdout
    assert "ulimit -f" in done.stdout
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["paper.md"]


def test_an_output_directory_that_is_a_file_is_told_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"")
    with pytest.raises(OutputNotWritable, match=r"out: File exists\. .*--output-dir") as caught:
        write_atomically(tmp_path / "out/sub/paper.md", b"x")
    assert caught.value.exit_status is ExitStatus.OUTPUT_NOT_WRITABLE


def test_a_folder_without_permission_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputNotWritable, match="Permission denied"), as_nobody():
        write_atomically(tmp_path / "paper.md", b"x")


@pytest.mark.parametrize(
    "code",
    [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO, errno.ESTALE, errno.EXDEV],
)
def test_every_failure_names_path_cause_and_next_step(code: int) -> None:
    with pytest.raises(OutputNotWritable) as caught, accessing(Path("out/caf\udce9\n.md")):
        raise OSError(code, os.strerror(code))
    message = str(caught.value)
    assert r"out/caf\xe9\x0a.md" in message
    assert os.strerror(code) in message
    assert "run the same command again" in message


def test_of_many_who_create_a_file_one_does_and_its_content_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new/file"
    created = [create_exclusively(path, f"run {number}".encode()) for number in range(4)]
    assert created == [True, False, False, False]
    assert path.read_bytes() == b"run 0"
    assert names(path.parent) == ["file"]


def test_without_hard_links_a_file_is_still_created_once(tmp_path: Path) -> None:
    assert _create_in_place(tmp_path / "file", b"first")
    assert not _create_in_place(tmp_path / "file", b"second")
    assert (tmp_path / "file").read_bytes() == b"first"


def test_an_output_is_described_relative_to_its_record(tmp_path: Path) -> None:
    described = output_file(tmp_path / "caf\udce9_assets/1.png", b"png", tmp_path)
    assert described.path == r"caf\xe9_assets/1.png"
    assert described.bytes == 3
    assert described.sha256 == hashlib.sha256(b"png").hexdigest()


def test_removing_an_output_is_harmless_where_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "paper.md").write_bytes(b"x")
    for _ in range(2):
        remove_output(tmp_path / "paper.md")
    assert names(tmp_path) == []
    with pytest.raises(OutputNotWritable):
        remove_output(tmp_path)


def test_a_file_opened_atomically_appears_only_if_the_body_succeeds(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "file"
    with open_atomically(path) as file:
        file.write(b"whole")
        assert not path.exists()
    with pytest.raises(KeyError), open_atomically(path) as file:
        file.write(b"half")
        raise KeyError
    assert path.read_bytes() == b"whole"
    assert list(path.parent.iterdir()) == [path]
