"""An engine that the nodes of a cluster have, as a run knows it."""

from __future__ import annotations

from dataclasses import dataclass

from dsocr_batch import __version__
from dsocr_batch.cluster.actor import EngineOrder, EngineProfile, profile_engine
from dsocr_batch.cluster.connect import Cluster
from dsocr_batch.cluster.seats import Need, seats
from dsocr_batch.engines.base import EngineIdentity
from dsocr_batch.engines.resolve import GPU_ENGINE
from dsocr_batch.errors import EngineUnusable
from dsocr_batch.options import EngineOptions
from dsocr_batch.profiles import VisionMode

ROOM_PATIENCE_S = 600.0
"""Others may use the whole cluster for so long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterEngine:
    """What every node of a cluster that takes part reads with."""

    cluster: Cluster
    order: EngineOrder
    need: Need
    profile: EngineProfile
    """As one node told it; a node with another identity takes no part."""

    @property
    def identity(self) -> EngineIdentity:
        """What goes into records and the settings digest."""
        return self.profile.identity

    @property
    def vision_mode(self) -> VisionMode | None:
        """How it looks at pages if not told otherwise."""
        return self.profile.vision_mode


def find_engine(
    cluster: Cluster, name: str, options: EngineOptions, cpus: int | None
) -> ClusterEngine:
    """Return the engine as the first node that is free and can have it describes it.

    It is asked of a node and not made here, because the head of a cluster may have neither GPU
    nor weights.

    Args:
        cluster: where pages are read.
        name: of the engine.
        options: the engine's own.
        cpus: for one engine; None for its share of the node.

    Raises:
        UsageError: an option is wrong.
        EngineUnusable: no node can have it.
    """
    nodes = cluster.nodes()
    has_gpus = name == GPU_ENGINE and any(node.gpus for node in nodes)
    need = Need(gpus=options.tensor_parallel_size or 1 if has_gpus else 0, cpus=cpus)
    asked = [seat for node in nodes for seat in seats(node, need)[:1]]
    if not asked:
        raise EngineUnusable(
            f"none of the {len(nodes)} nodes of the Ray cluster has {need} for an engine"
        )
    order = EngineOrder(version=__version__, name=name, options=options)
    profile = cluster.ask(asked, profile_engine, order, timeout_s=ROOM_PATIENCE_S)
    return ClusterEngine(cluster=cluster, order=order, need=need, profile=profile)
