"""Stand-ins for programs of another machine: they note how they were called."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path


class StubPrograms:
    """A folder of programs that is searched first; every call is noted as one line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "bin"
        self.folder.mkdir()
        self._calls = folder / "calls"
        self._calls.touch()

    def add(self, name: str, body: str = "exit 0") -> None:
        path = self.folder / name
        note = f"""echo "{name} ${{*//$'\\n'/ }}" >> "{self._calls}\""""
        path.write_text(f"#!/bin/bash\n{note}\n{body}\n")
        path.chmod(0o755)

    def calls(self) -> list[str]:
        """Return the calls since the last time, oldest first."""
        lines = self._calls.read_text().splitlines()
        self._calls.write_text("")
        return lines

    def run(
        self, *command: str | Path, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        path = f"{self.folder}:{os.environ['PATH']}"
        return subprocess.run(
            list(map(str, command)),
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "PATH": path, **(environment or {})},
        )
