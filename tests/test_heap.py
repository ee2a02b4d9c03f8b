from __future__ import annotations

import subprocess
import sys

import pytest

_BLOCKS = """
import resource
from dsocr_batch.render import heap

def faults_of_a_block():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytearray(b"x" * (16 << 20))
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

heap.keep_blocks()
faults_of_a_block()
kept = faults_of_a_block()
heap.give_back()
print(kept, faults_of_a_block())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems hold memory as they think best")
def test_memory_stays_from_page_to_page_until_it_is_given_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _BLOCKS], check=True, capture_output=True, text=True
    )
    kept, given_back = map(int, done.stdout.split())
    assert kept < 100
    assert given_back > 1000
