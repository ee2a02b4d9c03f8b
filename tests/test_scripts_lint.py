"""Scripts, templates and manifests, checked by the linters and schemas of their own kind."""

from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig
import tomllib
from pathlib import Path

import kubernetes_validate
import pytest
import typer
import yaml
from packaging.requirements import Requirement

from dsocr_batch.cli import cli

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "scripts"
SHELL_SCRIPTS = sorted(
    path for path in SCRIPTS.rglob("*") if path.suffix in (".sh", ".sbatch") and path.is_file()
)
LAUNCHERS = {
    "systemd": SCRIPTS / "aws/dsocr-batch@.service",
    "AWS Batch": SCRIPTS / "aws/batch.yaml",
    "Slurm": SCRIPTS / "slurm/dsocr-batch.sbatch",
    "Kubernetes": SCRIPTS / "kubernetes/job.yaml",
}


def lint(program: str, *arguments: str | Path) -> None:
    path = shutil.which(program, path=sysconfig.get_path("scripts"))
    assert path is not None, f"{program} is a development dependency: make install"
    done = subprocess.run(
        [path, *map(str, arguments)], check=False, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("script", SHELL_SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script: Path) -> None:
    lint("shellcheck", script)


def test_hadolint_finds_nothing() -> None:
    lint("hadolint", SCRIPTS / "docker/Dockerfile")


def test_the_image_has_a_version_of_vllm_that_is_supported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [vllm] = map(Requirement, project["optional-dependencies"]["vllm"])
    dockerfile = (SCRIPTS / "docker/Dockerfile").read_text()
    [tag] = re.findall(r"^FROM vllm/vllm-openai:v(\S+)$", dockerfile, re.MULTILINE)
    assert vllm.specifier.contains(tag), f"{tag} is not {vllm.specifier}"


@pytest.mark.slow
def test_cfn_lint_finds_nothing() -> None:
    lint("cfn-lint", "--include-checks=W,I", *sorted((SCRIPTS / "aws").glob("*.yaml")))


def job() -> dict[str, object]:
    manifest: dict[str, object] = yaml.safe_load((SCRIPTS / "kubernetes/job.yaml").read_text())
    return manifest


def test_the_job_fits_the_schema_of_kubernetes() -> None:
    for version in ("1.33", kubernetes_validate.latest_version()):
        kubernetes_validate.validate(job(), version, strict=True)


def test_the_schema_of_kubernetes_would_find_a_misspelt_field() -> None:
    wrong = (SCRIPTS / "kubernetes/job.yaml").read_text().replace("onExitCodes", "onExitCode")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(yaml.safe_load(wrong), "1.33", strict=True)


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_launcher_gives_only_options_that_the_command_has(name: str) -> None:
    run = typer.main.get_command(cli).commands["run"]  # type: ignore[attr-defined]
    offered = {option for parameter in run.params for option in parameter.opts}
    lines = [
        line
        for line in LAUNCHERS[name].read_text().splitlines()
        if not line.lstrip().startswith(("#", "srun"))
    ]
    used = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", "\n".join(lines)))
    assert used >= {"--input-dir", "--output-dir", "--engine", "--model"}
    assert used <= offered
