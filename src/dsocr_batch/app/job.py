"""Options → a job: documents and engine chosen, everything checked that needs no work."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsocr_batch.app.settings import text_settings
from dsocr_batch.cluster.connect import connect
from dsocr_batch.cluster.engine import ClusterEngine, find_engine
from dsocr_batch.discover import Discovered, Document, discover, refuse_collisions
from dsocr_batch.engines.base import Engine
from dsocr_batch.engines.resolve import (
    AUTO,
    CPU_ENGINE,
    choose_engine,
    has_cuda_device,
    load_engine,
)
from dsocr_batch.errors import OutputNotWritable, UsageError
from dsocr_batch.names import display_path
from dsocr_batch.options import RayOptions, RunOptions
from dsocr_batch.postprocess.grounding import LABELS
from dsocr_batch.profiles import VisionMode
from dsocr_batch.shard import shard_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A run that has been checked and not yet begun."""

    options: RunOptions
    engine: Engine | ClusterEngine
    discovered: Discovered
    documents: tuple[Document, ...]
    """Those of this shard, after ``--limit-docs``."""
    text_settings: dict[str, Any]


def prepare(options: RunOptions) -> Job:
    """Return a run with every check done that needs no work: no document is opened.

    Nothing is written, but inputs are listed where they are, also in an object store, and with
    ``--ray`` the cluster is joined.

    Raises:
        UsageError, InputMissing, EngineUnusable, OutputNotWritable: as their names say.
    """
    if sys.platform == "win32":
        raise UsageError("dsocr-batch runs on Linux and macOS; on Windows use WSL2")
    output_dir = options.output.output_dir
    if isinstance(output_dir, Path) and output_dir.exists() and not output_dir.is_dir():
        raise OutputNotWritable(
            f"{display_path(output_dir)} is a file: name a directory with --output-dir; "
            "it need not exist"
        )
    _refuse_unknown_labels(options)
    engine = _engine(options)
    _refuse_same_again(options, engine.vision_mode)
    discovered = discover(options.input, output_dir)
    if options.input.spool_dir is not None and discovered.store is None:
        raise UsageError("--spool-dir has no meaning where documents are files already")
    refuse_collisions(discovered.documents, options.mode)
    shard = options.input
    documents = tuple(
        document
        for document in discovered.documents
        if shard_of(document.relative, shard.num_shards) == shard.shard_index
    )[: shard.limit_docs]
    return Job(
        options=options,
        engine=engine,
        discovered=discovered,
        documents=documents,
        text_settings=text_settings(options, engine.identity),
    )


def _refuse_unknown_labels(options: RunOptions) -> None:
    """Refuse labels that no page can have: a slip would read every page twice, or nothing."""
    asked = {
        "--retry-label": options.retry.labels if options.retry else (),
        "--roi-label": options.roi.labels if options.roi else (),
    }
    for flag, labels in asked.items():
        for label in labels:
            if label not in LABELS:
                raise UsageError(f"{flag} {label!r}: the labels are {', '.join(LABELS)}")


def _engine(options: RunOptions) -> Engine | ClusterEngine:
    if options.ray is not None:
        return _cluster_engine(options, options.ray)
    name = choose_engine(
        options.engine_name,
        has_cuda=options.engine_name == AUTO and has_cuda_device(),
        num_shards=options.input.num_shards,
    )
    if options.engine_name == AUTO and name == CPU_ENGINE:
        log.warning(
            "No CUDA device is seen: reading with the CPU engine %s. This is not DeepSeek-OCR, "
            "and it reads neither Greek nor Cyrillic nor Arabic.",
            CPU_ENGINE,
        )
    return load_engine(name)(options.engine)


def _cluster_engine(options: RunOptions, ray: RayOptions) -> ClusterEngine:
    cluster = connect(ray.address)
    name = choose_engine(
        options.engine_name,
        has_cuda=any(node.gpus for node in cluster.nodes()),
        num_shards=1,
        is_cluster=True,
    )
    return find_engine(cluster, name, options.engine, ray.cpus)


def _refuse_same_again(options: RunOptions, vision_mode: VisionMode | None) -> None:
    if options.retry is not None and vision_mode is VisionMode.LARGE:
        raise UsageError(
            "--retry-large reads a page again in the mode large, and --vision-mode is large "
            "already: it would see the same. Leave one of them out."
        )
