"""Found by every Python that has this folder in PYTHONPATH: takes the network away."""

import os
import socket
from pathlib import Path
from typing import Any, NoReturn


def _refuse(*arguments: Any, **_: Any) -> NoReturn:
    raise OSError(f"no network in this test: {arguments}")


socket.socket.connect = _refuse  # type: ignore[method-assign]  # the point of this file
socket.getaddrinfo = _refuse
Path(os.environ["OFFLINE_MARKER"]).touch()
