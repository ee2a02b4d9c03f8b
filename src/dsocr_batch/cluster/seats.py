"""Where in a cluster pages can be read: pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A machine of the cluster, and what Ray may lend of it."""

    node_id: str
    name: str
    """Its address, for people."""
    cpus: int
    gpus: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """What one actor takes of a node."""

    node: Node
    cpus: int
    gpus: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What one engine needs."""

    gpus: int
    """0 for one that reads on CPUs."""
    cpus: int | None
    """None for its share of the node: with a GPU as many as fall to one, else all."""

    def __str__(self) -> str:
        """Say it for people."""
        asked = [f"{self.gpus} GPUs"] * bool(self.gpus)
        asked += [f"{self.cpus or 1} CPUs"] * (self.cpus is not None or not self.gpus)
        return " and ".join(asked)


def seats(node: Node, need: Need) -> list[Seat]:
    """Return the seats of a node while nobody else uses it."""
    if need.gpus:
        count = node.gpus // need.gpus
        if need.cpus is not None:
            count = min(count, node.cpus // need.cpus)
        cpus = need.cpus or node.cpus // max(1, count)
    else:
        cpus = need.cpus or node.cpus
        count = node.cpus // cpus if cpus else 0
    return [Seat(node=node, cpus=cpus, gpus=need.gpus)] * count
