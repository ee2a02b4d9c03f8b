from __future__ import annotations

import json
import threading
import time
from contextlib import ExitStack
from typing import Any

import pytest

from command import wait_until
from dsocr_batch.errors import LockHeld
from dsocr_batch.objects.store import ObjectStore
from dsocr_batch.output.object_lock import ObjectLock
from s3_server import Fault, S3Server

FOLDER = "out/.dsocr/locks"


def quick_lock(store: ObjectStore, index: int = 0, num: int = 1) -> ObjectLock:
    return ObjectLock(store, index, num, heartbeat_s=0.4, stale_after_s=1.2)


def leave_lock(s3: S3Server, store: ObjectStore, num: int = 1, **changes: Any) -> None:
    """Leave the lock of a run on another host."""
    key = f"{FOLDER}/shard-0-of-{num}.lock"
    with quick_lock(store, 0, num):
        holder = json.loads(s3.get(key))
    holder["place"]["host"] = "another-host"
    s3.put(key, json.dumps({**holder, **changes}).encode())


def test_the_lock_is_there_for_the_time_of_the_run(s3: S3Server, store: ObjectStore) -> None:
    with quick_lock(store) as lock:
        assert s3.keys(FOLDER) == [f"{FOLDER}/shard-0-of-1.lock"]
        wait_until(lambda: json.loads(s3.get(f"{FOLDER}/shard-0-of-1.lock"))["beat"] > 2)
        assert not lock.lost
    assert not s3.keys(FOLDER)


def test_a_second_run_is_told_who_holds_it(s3: S3Server, store: ObjectStore) -> None:
    assert s3.url
    with quick_lock(store), pytest.raises(LockHeld, match=r"s3://corpus/out.*lock") as caught:
        quick_lock(store).__enter__()
    assert "kill " in str(caught.value)


def test_shards_of_one_number_run_together_and_of_another_not(
    s3: S3Server, store: ObjectStore
) -> None:
    with quick_lock(store, 0, 2), quick_lock(store, 1, 2):
        with pytest.raises(LockHeld, match="another --num-shards than 3"):
            quick_lock(store, 0, 3).__enter__()
        assert len(s3.keys(FOLDER)) == 2


@pytest.mark.parametrize("num", [1, 3])
def test_a_lock_from_elsewhere_is_taken_over_after_its_heartbeat_stood_still(
    s3: S3Server, store: ObjectStore, num: int
) -> None:
    leave_lock(s3, store, num)
    began = time.monotonic()
    with quick_lock(store) as lock:
        assert time.monotonic() - began >= 1.2
        assert s3.keys(FOLDER) == [f"{FOLDER}/shard-0-of-1.lock"]
        time.sleep(0.2)
        assert not lock.lost


def test_a_lock_from_elsewhere_whose_heart_beats_is_held(s3: S3Server, store: ObjectStore) -> None:
    leave_lock(s3, store)
    stopped = threading.Event()

    def beat() -> None:
        for number in range(1000):
            holder = json.loads(s3.get(f"{FOLDER}/shard-0-of-1.lock"))
            s3.put(f"{FOLDER}/shard-0-of-1.lock", json.dumps({**holder, "beat": number}).encode())
            if stopped.wait(0.05):
                return

    heart = threading.Thread(target=beat)
    heart.start()
    with pytest.raises(LockHeld, match="another-host"):
        quick_lock(store).__enter__()
    stopped.set()
    heart.join()


def test_a_run_whose_lock_another_took_learns_of_it_and_leaves_it(
    s3: S3Server, store: ObjectStore
) -> None:
    with quick_lock(store) as lock:
        s3.put(f"{FOLDER}/shard-0-of-1.lock", b"another's")
        wait_until(lambda: lock.lost)
    assert s3.get(f"{FOLDER}/shard-0-of-1.lock") == b"another's"


@pytest.mark.slow
def test_lost_answers_do_not_cost_the_lock(s3: S3Server, store: ObjectStore) -> None:
    for _ in range(4):
        s3.fault(Fault(method="PUT", lose_answer=True))
    with quick_lock(store) as lock:
        wait_until(lambda: all(fault.met for fault in s3.faults))
        beat = json.loads(s3.get(f"{FOLDER}/shard-0-of-1.lock"))["beat"]
        wait_until(lambda: json.loads(s3.get(f"{FOLDER}/shard-0-of-1.lock"))["beat"] > beat)
        assert not lock.lost


def test_a_store_that_is_away_for_some_heartbeats_does_not_cost_the_lock(
    s3: S3Server, store: ObjectStore
) -> None:
    with quick_lock(store) as lock:
        s3.is_away = True
        time.sleep(0.3)
        s3.is_away = False
        beat = json.loads(s3.get(f"{FOLDER}/shard-0-of-1.lock"))["beat"]
        wait_until(lambda: json.loads(s3.get(f"{FOLDER}/shard-0-of-1.lock"))["beat"] > beat)
        assert not lock.lost


def test_of_runs_that_race_for_a_stale_lock_one_holds_it(s3: S3Server, store: ObjectStore) -> None:
    leave_lock(s3, store)
    held: list[ObjectLock] = []
    refused: list[LockHeld] = []
    with ExitStack() as stack:

        def race() -> None:
            try:
                held.append(stack.enter_context(quick_lock(store)))
            except LockHeld as error:
                refused.append(error)

        racers = [threading.Thread(target=race) for _ in range(5)]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join()
        assert (len(held), len(refused)) == (1, 4)
