"""The cluster that tests of ``--ray`` run on: it is real, and nothing of it stays behind."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from command import wait_until
from ray_cluster import processes_of, ray_cluster

TESTS = Path(__file__).parent
PATIENCE_S = 20.0

COUNT_NODES = """
import logging, ray, sys, time
ray.init(address=sys.argv[1], log_to_driver=False, logging_level=logging.ERROR)
told = None
while True:
    alive = sum(node["Alive"] for node in ray.nodes())
    if alive != told:
        print(alive, flush=True)
    told = alive
    time.sleep(0.1)
"""

START_AND_WAIT = """
import sys, time
sys.path.insert(0, sys.argv[1])
from ray_cluster import ray_cluster
with ray_cluster() as cluster:
    print(cluster.head.session, flush=True)
    time.sleep(600)
"""


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("lose", ["kill", "freeze"])
def test_a_lost_node_is_missed_and_in_the_end_no_process_is_left(lose: str) -> None:
    with ray_cluster() as cluster:
        node = cluster.add_node()
        sessions = [cluster.head.session, node.session]
        driver = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", COUNT_NODES, cluster.address],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **cluster.environment},
        )
        with driver:
            try:
                assert driver.stdout is not None
                assert driver.stdout.readline() == "2\n"
                getattr(node, lose)()
                counts = (line for line in driver.stdout if line.strip().isdigit())
                assert next(counts) == "1\n"
            finally:
                driver.kill()
    assert [processes_of(session) for session in sessions] == [[], []]


@pytest.mark.long
@pytest.mark.slow
def test_a_cluster_ends_with_the_tests_that_started_it_however_they_end() -> None:
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:  # as short as Ray needs it
        tests = subprocess.Popen(
            [sys.executable, "-c", START_AND_WAIT, str(TESTS)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": folder},
        )
        with tests:
            assert tests.stdout is not None
            session = int(tests.stdout.readline())
            assert processes_of(session)
            tests.kill()
        wait_until(lambda: not processes_of(session), timeout_s=PATIENCE_S)
