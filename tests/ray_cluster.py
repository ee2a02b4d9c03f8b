"""A real Ray cluster on this machine: a head and more nodes, any of which can be lost.

Each node is the session of one ``ray start --block``: its session id finds every process of the
node, the actors' children too, and no other cluster's. Other users of the machine are kept out by
a token, because Ray listens on every interface.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

START_S = 60.0
STOP_S = 20.0
POLL_S = 0.05
OBJECT_STORE_BYTES = 80_000_000  # the least that Ray takes is 75 MiB

# Ray takes a silent node for lost after about a quarter of a minute; here after about a second.
QUICK_HEALTH_CHECKS = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "300",
    "RAY_health_check_timeout_ms": "600",
    "RAY_health_check_failure_threshold": "3",
}

# SIGTERM for `ray start --block` if the tests are killed: it takes the whole node with it.
_START = """
import os, signal, sys
from dsocr_batch.child import die_with
die_with(int(sys.argv.pop(1)), signal.SIGTERM)
from ray.scripts.scripts import main
main()
"""


class RayNode:
    """One node; its processes, and those that they start, are one session."""

    def __init__(
        self, folder: Path, options: tuple[str, ...], environment: Mapping[str, str]
    ) -> None:
        self._address_file = folder / "ray_current_cluster"
        self._log = folder / "start.log"
        folder.mkdir()
        command = [
            *(sys.executable, "-c", _START, str(os.getpid())),
            *("start", "--block", "--disable-usage-stats", "--temp-dir", str(folder)),
            *("--object-store-memory", str(OBJECT_STORE_BYTES), *options),
        ]
        with self._log.open("wb") as log:
            self._leader = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=environment,
            )

    @property
    def session(self) -> int:
        """The session id of every process of this node."""
        return self._leader.pid

    def wait_until_ready(self) -> str:
        """Return the cluster's address, ``host:port``, when the node has joined."""
        deadline = time.monotonic() + START_S
        while not self._address_file.exists():
            if self._leader.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the node did not start:\n{self._log.read_text()}")
            time.sleep(POLL_S)
        return self._address_file.read_text()

    def processes(self) -> list[psutil.Process]:
        """Return what runs in this node."""
        return processes_of(self.session)

    def kill(self) -> None:
        """Let the node vanish with all its processes, as a machine without power does."""
        deadline = time.monotonic() + STOP_S
        while processes := self.processes():  # again for what was just being started
            for process in processes:
                process.kill()
            self._leader.poll()
            if time.monotonic() > deadline:
                raise AssertionError(f"the node does not die: {processes}")
            time.sleep(POLL_S)
        self._leader.wait()

    def freeze(self) -> None:
        """Let the node fall silent with its connections open, as a machine that hangs does."""
        for process in self.processes():
            process.suspend()


def processes_of(session: int) -> list[psutil.Process]:
    """Return the processes of a session that still run."""

    def is_alive(process: psutil.Process) -> bool:
        try:
            in_session = os.getsid(process.pid) == session
            return in_session and process.status() != psutil.STATUS_ZOMBIE
        except (ProcessLookupError, psutil.NoSuchProcess):
            return False

    return [process for process in psutil.process_iter() if is_alive(process)]


class RayCluster:
    """A head and the nodes that joined it, until the context ends."""

    head: RayNode
    address: str
    """Where a driver finds it, ``host:port``."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._nodes: list[RayNode] = []
        self.environment = {
            **QUICK_HEALTH_CHECKS,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "CUDA_VISIBLE_DEVICES": "",
            **environment,
        }
        """What nodes are started with, and what a driver needs to be let in."""

    def start_head(self, *, cpus: int) -> None:
        """Start the first node."""
        options = ("--head", "--port", "0", "--include-dashboard", "false")
        self.head = self._start(*options, cpus=cpus, environment={})
        self.address = self.head.wait_until_ready()

    def add_node(self, *, cpus: int = 1, environment: Mapping[str, str] | None = None) -> RayNode:
        """Let another node join, with more in its environment, and return it."""
        node = self._start("--address", self.address, cpus=cpus, environment=environment or {})
        node.wait_until_ready()
        return node

    @property
    def sessions(self) -> list[int]:
        """The session ids of all nodes."""
        return [node.session for node in self._nodes]

    def kill(self) -> None:
        """Let every node vanish."""
        for node in reversed(self._nodes):
            node.kill()

    def _start(self, *options: str, cpus: int, environment: Mapping[str, str]) -> RayNode:
        folder = self._folder / f"node{len(self._nodes)}"
        cpu_options = ("--num-cpus", str(cpus), "--num-gpus", "0")
        whole_environment = {**os.environ, **self.environment, **environment}
        node = RayNode(folder, (*options, *cpu_options), whole_environment)
        self._nodes.append(node)
        return node


@contextmanager
def ray_cluster(
    *, head_cpus: int = 1, environment: Mapping[str, str] | None = None
) -> Iterator[RayCluster]:
    """Start a cluster of one node, with more in its environment; in the end nothing is left."""
    # Not pytest's folder: Ray's sockets lie deep in it, and a socket's path has 107 bytes at most.
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    cluster = RayCluster(folder, environment or {})
    try:
        cluster.start_head(cpus=head_cpus)
        yield cluster
    finally:
        cluster.kill()
        shutil.rmtree(folder, ignore_errors=True)
