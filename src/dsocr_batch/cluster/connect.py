"""The way into a Ray cluster that somebody has started."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, contextmanager
from typing import Any, TypeVar

from dsocr_batch.cluster.seats import Node, Seat
from dsocr_batch.errors import DsocrError, EngineUnusable, UsageError

log = logging.getLogger(__name__)

T = TypeVar("T")

AUTO = "auto"

TRY_S = 5.0
"""For the head to take a connection."""

HEAD_PATIENCE_S = 30.0
"""The head may be away for so long; after 60 s Ray itself ends the process, without a word."""

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # A wrong token is told after 3 s, not after 20.
    "RAY_NUM_REDIS_GET_RETRIES": "2",
}


def connect(address: str) -> Cluster:
    """Return the cluster at an address; this process must be on one of its nodes.

    Args:
        address: ``HOST:PORT`` of the head, or ``auto`` for ``RAY_ADDRESS`` or, without it, the
            cluster that this machine belongs to.

    Raises:
        UsageError: the address has another form.
        EngineUnusable: ray is not installed, or there is no such cluster that lets us in.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray  # noqa: PLC0415 (an extra, and heavy)
        from ray._private import services  # noqa: PLC0415
    except ImportError as error:
        raise EngineUnusable(
            "--ray needs Ray, which is not installed: pip install 'dsocr-batch[ray]', with the "
            "same versions as on the nodes"
        ) from error
    if "://" in address or address == "local":
        raise UsageError(f"--ray {address}: must be auto or the HOST:PORT of a cluster's head")
    level = logging.WARNING if log.isEnabledFor(logging.DEBUG) else logging.CRITICAL
    logging.getLogger("ray").setLevel(level)
    try:
        found: str = services.canonicalize_bootstrap_address_or_die(address)
        host, port = services.extract_ip_port(found)
    except ValueError as error:
        raise UsageError(f"--ray {address}: {error}") from error
    except ConnectionError as error:
        raise EngineUnusable(
            "--ray auto: no Ray cluster runs on this machine and RAY_ADDRESS is not set. Start "
            "one with `ray start --head`, or name its head: --ray HOST:PORT"
        ) from error
    # Where nobody answers, Ray would try for minutes, deaf to signals.
    try:
        socket.create_connection((host, port), timeout=TRY_S).close()
    except OSError as error:
        raise EngineUnusable(
            f"--ray {address}: nobody answers at {found} ({error.strerror or error}). Is the "
            "cluster up, and is this its head's address?"
        ) from error
    # Ray puts the current directory first in the modules' path of every actor: a json.py beside
    # the documents would run on all nodes.
    with chdir(sysconfig.get_path("purelib")), _own_sigterm():
        try:
            ray.init(
                address=found,
                log_to_driver=False,
                configure_logging=False,
                logging_level=level,
            )
        except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
            raise EngineUnusable(
                f"--ray {address}: the cluster at {found} does not let us in. This process must "
                "be on one of its nodes, with the same versions of Ray and Python, and "
                f"RAY_AUTH_TOKEN if the cluster has one. Ray says: {error}"
            ) from error
    return Cluster(ray, (host, port))


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Leave SIGTERM to whom it belonged before: Ray would print a stack trace at it."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Cluster:
    """A Ray cluster that this process is connected to."""

    def __init__(self, ray: Any, head: tuple[str, int]) -> None:
        """Take the module ``ray``, connected, and where the head listens."""
        self._ray = ray
        self._head = head

    def nodes(self) -> list[Node]:
        """Return the nodes that are alive."""
        return [
            Node(
                node_id=node["NodeID"],
                name=node["NodeManagerAddress"],
                cpus=int(node["Resources"].get("CPU", 0)),
                gpus=int(node["Resources"].get("GPU", 0)),
            )
            for node in self._ray.nodes()
            if node["Alive"]
        ]

    async def living_nodes(self) -> list[Node]:
        """Return the nodes that are alive, without a wait for a head that is not.

        Raises:
            EngineUnusable: the head is gone.
        """
        deadline = time.monotonic() + HEAD_PATIENCE_S
        while True:
            try:
                async with asyncio.timeout(TRY_S):
                    _, writer = await asyncio.open_connection(*self._head)
                    writer.close()
                    return await asyncio.to_thread(self.nodes)
            except (OSError, TimeoutError) as error:
                if time.monotonic() > deadline:
                    raise EngineUnusable(
                        f"the head of the Ray cluster, {self._head[0]}, has not answered for "
                        f"{HEAD_PATIENCE_S:.0f} s. What is finished is kept: start the cluster "
                        "again, and run the same command."
                    ) from error
                await asyncio.sleep(1)

    def ask(
        self, asked: Sequence[Seat], function: Callable[..., T], *arguments: Any, timeout_s: float
    ) -> T:
        """Return what a function returns on the first node that is free and does not refuse.

        Args:
            asked: all at once; of answers that are there together, that of the first counts.
            function: to be called on each node.
            *arguments: the function's; the CPUs of the seat come after them.
            timeout_s: how long others may use the nodes.

        Raises:
            DsocrError: every node refused; the last one says why.
            EngineUnusable: those that have not refused are in use.
        """
        ray = self._ray
        remote = ray.remote(function)
        pending = {
            remote.options(**self._placed(seat)).remote(*arguments, seat.cpus): seat
            for seat in asked
        }
        refusals: list[DsocrError] = []
        deadline = time.monotonic() + timeout_s
        try:
            while pending:
                ready, _ = ray.wait(list(pending), timeout=max(0, deadline - time.monotonic()))
                if not ready:
                    last = f" One that had room refused: {refusals[-1]}" if refusals else ""
                    raise EngineUnusable(
                        f"for {timeout_s / 60:.0f} minutes no node of the Ray cluster has had room "
                        "for an engine: others use them. Wait for them, or ask for less with "
                        f"--ray-cpus.{last}"
                    )
                (answer,) = ready
                try:
                    value: T = self._answer(answer, pending.pop(answer))
                except DsocrError as error:
                    refusals.append(error)
                else:
                    return value
        finally:
            for answer in pending:
                ray.cancel(answer)  # not by force: its process is soon an actor's
        raise refusals[-1]

    def _answer(self, answer: Any, seat: Seat) -> Any:
        """Return an answer that is there, or raise why there is none.

        Raises:
            DsocrError: as the function raised it; or the node cannot run it.
        """
        exceptions = self._ray.exceptions
        try:
            return self._ray.get(answer)
        except exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, DsocrError):
                raise type(cause)(f"node {seat.node.name}: {cause}") from error
            raise EngineUnusable(
                f"node {seat.node.name} cannot make the engine: {in_short(cause)}. Is dsocr-batch "
                "installed there?"
            ) from error
        except exceptions.RayError as error:
            raise EngineUnusable(f"node {seat.node.name}: {in_short(error)}") from error

    def hire(self, seat: Seat, actor_class: type) -> Any:
        """Return a handle of a new actor, which comes up as soon as its seat is free."""
        return self._ray.remote(actor_class).options(**self._placed(seat)).remote()

    def dismiss(self, actor: Any) -> None:
        """Kill an actor, with all that it started."""
        self._ray.kill(actor)

    def leave(self) -> None:
        """Disconnect."""
        self._ray.shutdown()

    def _placed(self, seat: Seat) -> dict[str, Any]:
        from ray.util.scheduling_strategies import (  # noqa: PLC0415 (heavy)
            NodeAffinitySchedulingStrategy,
        )

        return {
            "num_cpus": seat.cpus,
            "num_gpus": seat.gpus,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(seat.node.node_id, soft=False),
        }


def in_short(error: Exception) -> str:
    """Return the last line of what Ray says of an error: the reason, after a page of traceback."""
    return str(error).strip().rpartition("\n")[2].strip() or type(error).__name__
