from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dsocr_batch.errors import OutputNotWritable
from dsocr_batch.scratch import scratch_folder

HOLD = """
import sys
from pathlib import Path
from dsocr_batch.scratch import scratch_folder
with scratch_folder(Path(sys.argv[1]), "test") as folder:
    (folder / "file").write_text("content")
    print(folder, flush=True)
    sys.stdin.readline()
"""


def test_a_folder_lives_as_long_as_its_run_and_no_run_removes_anothers(tmp_path: Path) -> None:
    with scratch_folder(tmp_path / "new", "test") as first:
        (first / "file").write_text("content")
        with scratch_folder(tmp_path / "new", "test") as second:
            assert first != second
            assert not [*second.iterdir()]
        assert (first / "file").exists()
    assert not [*(tmp_path / "new").iterdir()]


def test_what_a_killed_run_left_goes_with_the_next_one(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    left = Path(process.stdout.readline().strip())
    with scratch_folder(tmp_path, "test"):
        assert (left / "file").exists()
    process.kill()
    process.communicate()
    with scratch_folder(tmp_path, "other"):
        assert left.exists()
    with scratch_folder(tmp_path, "test"):
        assert not left.exists()


def test_a_place_where_no_folder_can_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(OutputNotWritable, match="TMPDIR"),
        scratch_folder(tmp_path / "file", "test"),
    ):
        pass
