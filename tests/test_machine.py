from __future__ import annotations

from dsocr_batch.machine import cores_within, free_memory_bytes, memory_within, usable_cores


def test_cores_are_those_that_the_container_may_use() -> None:
    assert cores_within("100000 100000") == 1
    assert cores_within("50000 100000") == 1
    assert cores_within("max 100000") == cores_within("") >= 1


def test_free_memory_is_the_smaller_of_the_machines_and_the_containers() -> None:
    assert memory_within("MemAvailable:    1000 kB\n", "", "") == 1_024_000
    assert memory_within("MemAvailable:    1000 kB\n", "max\n", "5\n") == 1_024_000
    assert memory_within("MemAvailable:    1000 kB\n", "900000\n", "400000\n") == 500_000
    assert memory_within("", "", "") is None


def test_this_machine_has_a_core_and_some_memory() -> None:
    assert usable_cores() >= 1
    assert free_memory_bytes() is None or free_memory_bytes() != 0
