from __future__ import annotations

import fcntl
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dsocr_batch.errors import ExitStatus, LockHeld, OutputNotWritable
from dsocr_batch.output.lock import ShardLock

locks = Path("/proc/locks")


def lock_path(output_dir: Path, index: int = 0, num: int = 1) -> Path:
    return output_dir / f".dsocr/locks/shard-{index}-of-{num}.lock"


def leave_lock(path: Path, **changes: Any) -> None:
    """Write a lock as this process would, with some of its fields changed."""
    with ShardLock(path.parent / "sample", 0, 1):
        holder = json.loads(lock_path(path.parent / "sample").read_bytes())
    for name, value in changes.items():
        (holder["place"] if name in holder["place"] else holder)[name] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(holder))


def dead_pid() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


HOLD = """
import sys, time
from pathlib import Path
from dsocr_batch.output.lock import ShardLock
with ShardLock(Path(sys.argv[1]), 0, 1):
    print("held", flush=True)
    sys.stdin.readline()
"""


def start_holder(output_dir: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(output_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_run_on_the_same_shard_is_told_who_holds_it_and_what_to_do(
    tmp_path: Path,
) -> None:
    with start_holder(tmp_path) as process:
        with pytest.raises(LockHeld) as caught, ShardLock(tmp_path, 0, 1):
            pass
        process.communicate("end\n", timeout=10)
    message = str(caught.value)
    assert f"process {process.pid} on {os.uname().nodename}, since 20" in message
    assert f"kill {process.pid}" in message
    assert "--output-dir" in message
    assert caught.value.exit_status is ExitStatus.USAGE
    with ShardLock(tmp_path, 0, 1):
        pass


def test_shards_of_one_number_run_beside_each_other(tmp_path: Path) -> None:
    with ShardLock(tmp_path, 0, 2), ShardLock(tmp_path, 1, 2):
        assert lock_path(tmp_path, 0, 2).exists()
        assert lock_path(tmp_path, 1, 2).exists()


def test_a_live_run_with_another_number_of_shards_is_refused(tmp_path: Path) -> None:
    with (
        ShardLock(tmp_path, 1, 2),
        pytest.raises(LockHeld, match="another --num-shards than 3"),
        ShardLock(tmp_path, 0, 3),
    ):
        pass
    with ShardLock(tmp_path, 0, 3):
        assert not lock_path(tmp_path, 1, 2).exists()


def test_the_lock_is_gone_after_the_run_also_if_it_failed(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), ShardLock(tmp_path, 0, 1):
        raise RuntimeError
    assert [path.name for path in lock_path(tmp_path).parent.iterdir()] == [".guard"]


def test_the_lock_of_a_killed_run_is_taken_over_at_once(tmp_path: Path) -> None:
    with start_holder(tmp_path) as process:
        process.kill()
    started = time.monotonic()
    with ShardLock(tmp_path, 0, 1) as lock:
        assert time.monotonic() - started < 5
        assert not lock.lost


def test_what_a_killed_run_left_of_its_lock_is_removed(tmp_path: Path) -> None:
    folder = lock_path(tmp_path).parent
    folder.mkdir(parents=True)
    (folder / ".shard-1-of-2.lock.0123456789abcdef.tmp").write_bytes(b"half")
    with ShardLock(tmp_path, 0, 1):
        assert {path.name for path in folder.iterdir()} == {".guard", "shard-0-of-1.lock"}


def test_the_lock_of_a_killed_run_that_nobody_reaped_is_taken_over_at_once(tmp_path: Path) -> None:
    with start_holder(tmp_path) as process:
        process.kill()
        state = Path(f"/proc/{process.pid}/stat")
        wait_until(lambda: b") Z " in state.read_bytes())
        with ShardLock(tmp_path, 0, 1):
            pass


def test_a_pid_that_another_process_has_now_does_not_hold_the_lock(tmp_path: Path) -> None:
    leave_lock(lock_path(tmp_path), pid=os.getpid(), started_ticks=1)
    with ShardLock(tmp_path, 0, 1):
        pass


@pytest.mark.parametrize("field", ["host", "boot_id", "pid_namespace"])
def test_a_lock_from_elsewhere_is_taken_over_only_after_its_heartbeat_stood_still(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, field: str
) -> None:
    leave_lock(lock_path(tmp_path), pid=dead_pid(), **{field: "elsewhere"})
    started = time.monotonic()
    with (
        caplog.at_level(logging.WARNING),
        ShardLock(tmp_path, 0, 1, stale_after_s=0.2),
    ):
        assert time.monotonic() - started >= 0.2
    (message,) = [record.getMessage() for record in caplog.records]
    assert "waiting up to" in message


def test_a_lock_from_elsewhere_whose_heart_beats_is_held(tmp_path: Path) -> None:
    path = lock_path(tmp_path)
    leave_lock(path, host="elsewhere", pid=77)
    with subprocess.Popen([sys.executable, "-c", BEAT, str(path)]) as writer:
        lock = ShardLock(tmp_path, 0, 1, stale_after_s=10)
        with pytest.raises(LockHeld, match="process 77 on elsewhere"), lock:
            pass
        writer.kill()


BEAT = """
import json, sys, time
from pathlib import Path
path = Path(sys.argv[1])
for beat in range(1000):
    path.with_suffix(".new").write_text(json.dumps({**json.loads(path.read_bytes()), "beat": beat}))
    path.with_suffix(".new").replace(path)
    time.sleep(0.2)
"""


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff", b'{"pid": -1}'])
def test_a_damaged_lock_is_watched_like_one_from_elsewhere(tmp_path: Path, damage: bytes) -> None:
    path = lock_path(tmp_path)
    path.parent.mkdir(parents=True)
    path.write_bytes(damage)
    started = time.monotonic()
    with ShardLock(tmp_path, 0, 1, stale_after_s=0.1):
        assert time.monotonic() - started >= 0.1


def test_the_heart_beats_in_the_file_itself(tmp_path: Path) -> None:
    path = lock_path(tmp_path)
    with ShardLock(tmp_path, 0, 1, heartbeat_s=0.01) as lock:
        before = path.stat().st_ino
        wait_until(lambda: json.loads(path.read_bytes())["beat"] >= 12)
        assert path.stat().st_ino == before
        assert not lock.lost


def test_a_run_whose_lock_another_took_learns_of_it_and_leaves_the_other_alone(
    tmp_path: Path,
) -> None:
    path = lock_path(tmp_path)
    with ShardLock(tmp_path, 0, 1, heartbeat_s=0.01) as lock:
        leave_lock(tmp_path / "other.lock")
        (tmp_path / "other.lock").replace(path)
        wait_until(lambda: lock.lost)
        taken = path.read_bytes()
    assert path.read_bytes() == taken


def test_a_run_whose_lock_was_removed_learns_of_it(tmp_path: Path) -> None:
    with ShardLock(tmp_path, 0, 1, heartbeat_s=0.01) as lock:
        assert not lock.lost
        lock_path(tmp_path).unlink()
        wait_until(lambda: lock.lost)


def test_a_stale_lock_is_not_touched_while_another_run_decides_on_it(tmp_path: Path) -> None:
    path = lock_path(tmp_path)
    leave_lock(path, pid=dead_pid())
    stale = path.read_bytes()
    with (path.parent / ".guard").open("ab") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        # Linux shows in /proc/locks, behind an arrow, who waits for a lock.
        wait_until(lambda: f"-> FLOCK  ADVISORY  WRITE {process.pid} " in locks.read_text())
        assert path.read_bytes() == stale
    assert process.communicate(b"end\n", timeout=10)[0] == b"held\n"


def test_an_output_directory_that_cannot_be_made_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"")
    with pytest.raises(OutputNotWritable), ShardLock(tmp_path / "out", 0, 1):
        pass


RACE = """
import os, sys, time
from pathlib import Path
from dsocr_batch.errors import LockHeld
from dsocr_batch.output.lock import ShardLock
folder = Path(sys.argv[1])
print("ready", flush=True)
for line in sys.stdin:
    out = folder / line.strip()
    try:
        with ShardLock(out, 0, 1, stale_after_s=float(sys.argv[2])):
            os.close(os.open(out / "inside", os.O_CREAT | os.O_EXCL))
            time.sleep(0.02)
            os.unlink(out / "inside")
    except LockHeld:
        print("refused", flush=True)
    else:
        print("held", flush=True)
"""


@pytest.mark.parametrize("place, stale_after_s", [({}, 60.0), ({"host": "elsewhere"}, 0.1)])
def test_of_many_runs_that_race_for_a_stale_lock_one_holds_it_at_a_time(
    tmp_path: Path, place: dict[str, str], stale_after_s: float
) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, str(tmp_path), str(stale_after_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        for _ in range(8)
    ]
    rounds = [tmp_path / str(number) for number in range(5)]
    for out in rounds:
        leave_lock(lock_path(out), pid=dead_pid(), **place)
    answers: list[list[str]] = []
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for out in rounds:
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write(f"{out.name}\n")
        answers.append([racer.stdout.readline() for racer in racers if racer.stdout])
    for racer in racers:
        racer.communicate(timeout=10)
    # A racer that finds another one inside dies of FileExistsError and answers nothing.
    assert all(set(answer) <= {"held\n", "refused\n"} for answer in answers), answers
    assert all("held\n" in answer for answer in answers)
    assert [racer.returncode for racer in racers] == [0] * len(racers)
