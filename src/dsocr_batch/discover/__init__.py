"""Which documents a run reads, by their names alone: no file is opened here.

What is passed over is never lost: every such name is in ``Discovered.ignored`` with a reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dsocr_batch.discover.collisions import refuse_collisions
from dsocr_batch.discover.documents import (
    Discovered,
    Document,
    IgnoredInput,
    source_stat,
    summary,
)
from dsocr_batch.discover.files import below_directory, explicit_file, named_files
from dsocr_batch.discover.lists import listed_entries
from dsocr_batch.discover.objects import (
    below_prefix,
    explicit_object,
    named_objects,
    with_possible_outputs,
)
from dsocr_batch.errors import InputMissing, UsageError
from dsocr_batch.names import display_path
from dsocr_batch.objects.records import Location, ObjectUrl
from dsocr_batch.options import InputOptions

__all__ = [
    "Discovered",
    "Document",
    "IgnoredInput",
    "discover",
    "refuse_collisions",
    "source_stat",
]


def discover(options: InputOptions, output_dir: Location) -> Discovered:
    """Return every document that the options name; shard and limit are not applied yet.

    The root is ``--input-dir``, or else the common parent of all ``--pdf`` and ``--input-list``
    entries. Below ``--input-dir``, hidden names, linked directories and the results of runs are
    passed over; links to regular files are read, also when they point out of the tree. Names
    given one by one are read whatever they are called, if their type is known.

    Args:
        options: the sources, and whether to descend.
        output_dir: where results will go; never read from. In an object store, documents are
            ignored whose results would have keys that no store takes.

    Raises:
        UsageError: no source, sources that exclude each other, a name that is not a document,
            or an output directory that is or holds the input root.
        InputMissing: a source does not exist or cannot be listed, or no document is in it.
    """
    if options.input_dir is not None:
        if options.pdfs or options.input_list is not None:
            raise UsageError(
                "--input-dir does not go with --pdf or --input-list: "
                "drop the one or the others, or make two runs"
            )
        found = _below(options.input_dir, output_dir, recursive=options.recursive)
    elif options.pdfs or options.input_list is not None:
        found = _named(options.pdfs, options.input_list, output_dir)
    else:
        raise UsageError(
            "nothing to read: name a directory with --input-dir, single files with --pdf, or a "
            "text file of paths with --input-list. For example: dsocr-batch run --input-dir scans"
        )
    if isinstance(output_dir, ObjectUrl):
        found = with_possible_outputs(found, output_dir)
    if not found.documents:
        source = display_path(str(options.input_dir or options.input_list or found.root))
        raise InputMissing(f"{source}: no document in it. {summary(found.ignored)}")
    return found


def _below(input_dir: Location, output_dir: Location, *, recursive: bool) -> Discovered:
    if isinstance(input_dir, ObjectUrl):
        return below_prefix(input_dir, output_dir, recursive=recursive)
    return below_directory(input_dir, _on_disk(output_dir), recursive=recursive)


def _named(
    pdfs: Sequence[Location], input_list: Location | None, output_dir: Location
) -> Discovered:
    paths = [explicit_file(pdf) for pdf in pdfs if isinstance(pdf, Path)]
    urls = [explicit_object(pdf) for pdf in pdfs if isinstance(pdf, ObjectUrl)]
    listed = [] if input_list is None else listed_entries(input_list)
    listed_urls = [entry for entry in listed if isinstance(entry, ObjectUrl)]
    paths += [entry for entry in listed if isinstance(entry, str)]
    if paths and (urls or listed_urls):
        raise UsageError(
            f"{(urls or listed_urls)[0]} lies in an object store and {display_path(paths[0])} does "
            "not: read them in two runs"
        )
    if urls or listed_urls:
        return named_objects(urls, listed_urls, output_dir)
    return named_files(paths, _on_disk(output_dir))


def _on_disk(output_dir: Location) -> Path | None:
    return output_dir if isinstance(output_dir, Path) else None
