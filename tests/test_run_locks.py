"""Several runs of the real command on one output directory."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from command import read, running, wait_until
from outputs import comparable, pages_read

pytestmark = pytest.mark.slow

Script = Callable[..., Path]

SHARDS = 3


def lock_path(out: Path, shard_index: int = 0, num_shards: int = 1) -> Path:
    return out / ".dsocr" / "locks" / f"shard-{shard_index}-of-{num_shards}.lock"


def shard(index: int) -> tuple[str, ...]:
    return "--num-shards", str(SHARDS), "--shard-index", str(index), "--cpu-workers", "1"


def test_shards_at_work_together_make_what_one_run_makes(
    corpus: Path, out: Path, script: Script, tmp_path: Path
) -> None:
    slow = script(delay_s=0.05)
    with ExitStack() as stack:
        shards = [stack.enter_context(running(corpus, slow, out, *shard(n))) for n in range(SHARDS)]
        assert [process.wait(60) for process in shards] == [0] * SHARDS
    assert sorted(Counter(pages_read(tmp_path)).values()) == [1] * 20
    assert [path.name for path in lock_path(out).parent.iterdir()] == [".guard"]
    assert not list(out.rglob("*.tmp"))
    read(corpus, script(), tmp_path / "whole")
    assert comparable(out) == comparable(tmp_path / "whole")


def test_a_killed_shard_is_taken_up_while_the_others_go_on(
    corpus: Path, out: Path, script: Script, tmp_path: Path
) -> None:
    slow = script(delay_s=0.3)
    with ExitStack() as stack:
        first, *others = [
            stack.enter_context(running(corpus, slow, out, *shard(n), "--batch-pages", "1"))
            for n in range(SHARDS)
        ]
        for number in range(SHARDS):
            wait_until(lock_path(out, number, SHARDS).exists)
        first.kill()
        first.wait()
        assert read(corpus, script(), out, *shard(0)).status == 0
        assert [process.wait(60) for process in others] == [0] * len(others)
    read(corpus, script(), tmp_path / "whole")
    assert comparable(out) == comparable(tmp_path / "whole")


def test_only_the_same_shard_is_refused(corpus: Path, out: Path, script: Script) -> None:
    with running(corpus, script(delay_s=60), out, *shard(0)) as process:
        wait_until(lock_path(out, 0, SHARDS).exists)
        assert read(corpus, script(), out, *shard(1)).status == 0
        same = read(corpus, script(), out, *shard(0))
        assert same.status == 2
        assert str(process.pid) in same.stderr
        assert "Traceback" not in same.stderr


def test_the_lock_of_a_run_that_was_killed_keeps_nobody_waiting(
    corpus: Path, out: Path, script: Script
) -> None:
    with running(corpus, script(delay_s=0.2), out) as process:
        wait_until(lock_path(out).exists)
        process.kill()
        process.wait()
    assert lock_path(out).exists()
    done = read(corpus, script(), out)
    assert done.status == 0
    assert "waiting" not in done.stderr


def test_a_run_on_another_host_is_left_alone_while_its_heart_beats(
    corpus: Path, out: Path, script: Script
) -> None:
    with running(corpus, script(delay_s=0.2), out) as process:
        wait_until(lock_path(out).exists)
        holder = json.loads(lock_path(out).read_bytes())
        process.kill()
    holder["place"]["host"] = "another-host"
    with beating(lock_path(out), holder):
        refused = read(corpus, script(), out)
    assert refused.status == 2
    assert "on another-host" in refused.stderr
    assert "--output-dir" in refused.stderr


@contextmanager
def beating(path: Path, holder: dict[str, object]) -> Iterator[None]:
    """Count up the heartbeat in a lock, as the run that holds it would."""
    stopped = threading.Event()

    def beat() -> None:
        for number in range(10_000):
            path.write_text(json.dumps({**holder, "beat": number}), encoding="utf-8")
            if stopped.wait(0.2):
                return

    heart = threading.Thread(target=beat)
    heart.start()
    try:
        yield
    finally:
        stopped.set()
        heart.join()
