"""What a run leaves, as tests look at it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from s3_server import S3Server


def pages_read(tmp_path: Path) -> list[str]:
    """Return the ids of the pages that the scripted engine has read, in order."""
    log = tmp_path / "reads.log"
    return log.read_text(encoding="utf-8").splitlines() if log.exists() else []


def record_of(output_dir: Path, stem: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((output_dir / f"{stem}.json").read_bytes())
    return record


def pulled(s3: S3Server, folder: Path, prefix: str = "out") -> Path:
    """Return a directory of all objects below a prefix, as `aws s3 sync` makes it."""
    for key in s3.keys(f"{prefix}/"):
        path = folder / key.removeprefix(f"{prefix}/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(s3.get(key))
    return folder


def comparable(output_dir: Path) -> dict[str, Any]:
    """Return the outputs as "identical" means them: .md byte for byte, .json without times."""
    outputs: dict[str, Any] = {}
    for path in sorted(output_dir.rglob("*")):
        relative = path.relative_to(output_dir)
        if path.is_dir() or relative.parts[0] == ".dsocr":
            continue
        if path.suffix != ".json":
            outputs[str(relative)] = path.read_bytes()
            continue
        record = json.loads(path.read_bytes())
        del record["finished_at"]
        for page in record["pages"]:
            del page["timing"], page["attempts"]
        outputs[str(relative)] = record
    return outputs
