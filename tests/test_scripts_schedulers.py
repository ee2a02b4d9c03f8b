"""The examples for Slurm and Kubernetes: what they ask for, and what they do with exit statuses."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from dsocr_batch.errors import ExitStatus
from dsocr_batch.pipeline.publish import FAREWELL_S
from stub_programs import StubPrograms

SCRIPTS = Path(__file__).parents[1] / "scripts"
SBATCH = SCRIPTS / "slurm/dsocr-batch.sbatch"
KNOWN = {
    "array": r"\d+-\d+",
    "cpus-per-task": r"\d+",
    "gres": r"gpu:\d+",
    "job-name": r"\S+",
    "mem": r"\d+G",
    "ntasks": r"1",
    "open-mode": r"append",
    "output": r"\S*%A_%a\S*",
    "requeue": r"",
    "time": r"\d\d:\d\d:\d\d",
}
"""Options of sbatch as https://slurm.schedmd.com/sbatch.html spells them, with our values."""


def directives() -> dict[str, str]:
    """Return what sbatch reads: it stops at the first line that is neither comment nor empty."""
    found = {}
    for line in SBATCH.read_text().splitlines()[1:]:
        if line and not line.startswith("#"):
            break
        if line.startswith("#SBATCH"):
            name, _, value = line.removeprefix("#SBATCH --").partition("=")
            found[name] = value
    return found


def test_sbatch_reads_every_directive_and_knows_it() -> None:
    assert len(directives()) == SBATCH.read_text().count("\n#SBATCH ")
    for name, value in directives().items():
        assert re.fullmatch(KNOWN[name], value), f"--{name}={value}"


def test_a_shard_stops_taking_pages_before_slurm_ends_it() -> None:
    hours, minutes, seconds = map(int, directives()["time"].split(":"))
    match = re.search(r"^max_runtime_s=(\d+)$", SBATCH.read_text(), re.MULTILINE)
    assert match is not None
    assert hours * 3600 + minutes * 60 + seconds - int(match[1]) >= 900


@pytest.fixture
def slurm(tmp_path: Path) -> StubPrograms:
    programs = StubPrograms(tmp_path)
    programs.add("scontrol")
    return programs


def submitted(slurm: StubPrograms, status: int, *options: str) -> subprocess.CompletedProcess[str]:
    slurm.add("srun", f"exit {status}")
    environment = {
        "SLURM_ARRAY_JOB_ID": "28",
        "SLURM_ARRAY_TASK_ID": "3",
        "SLURM_CPUS_PER_TASK": "8",
        "DSOCR_MODEL": "/weights",
    }
    return slurm.run("bash", SBATCH, *options, environment=environment)


def test_a_task_runs_its_shard_with_more_options(slurm: StubPrograms) -> None:
    assert submitted(slurm, 0, "/corpus", "/texts", "--mode", "grounded").returncode == 0
    [call] = slurm.calls()
    assert call == (
        "srun --cpus-per-task=8 dsocr-batch run --input-dir /corpus --recursive "
        "--output-dir /texts --engine vllm --model /weights --shard-from slurm "
        "--max-runtime 13200 --mode grounded"
    )


@pytest.mark.parametrize("status", [s for s in ExitStatus if s is not ExitStatus.OK])
def test_a_task_goes_back_into_the_queue_only_if_time_was_up(
    slurm: StubPrograms, status: ExitStatus
) -> None:
    done = submitted(slurm, status, "/corpus", "/texts")
    requeued = "scontrol requeue 28_3" in slurm.calls()
    assert requeued is (status is ExitStatus.STOPPED_BY_MAX_RUNTIME)
    assert done.returncode == (0 if requeued else status)


def test_folders_are_asked_for(slurm: StubPrograms) -> None:
    done = submitted(slurm, 0, "/corpus")
    assert done.returncode == 2
    assert "usage: sbatch" in done.stderr
    assert slurm.calls() == []


@pytest.fixture(scope="module")
def job() -> dict[str, Any]:
    spec: dict[str, Any] = yaml.safe_load((SCRIPTS / "kubernetes/job.yaml").read_text())["spec"]
    return spec


@pytest.fixture(scope="module")
def container(job: dict[str, Any]) -> dict[str, Any]:
    [only] = job["template"]["spec"]["containers"]
    assert isinstance(only, dict)
    return only


def test_the_number_of_shards_is_the_number_of_completions(
    job: dict[str, Any], container: dict[str, Any]
) -> None:
    environment = {variable["name"]: variable["value"] for variable in container["env"]}
    assert environment["DSOCR_NUM_SHARDS"] == str(job["completions"])
    assert "--shard-from=kubernetes" in container["args"]


def _action(job: dict[str, Any], status: int, *, disrupted: bool = False) -> str:
    """What Kubernetes does with a pod that failed: the first rule that matches counts.

    https://kubernetes.io/docs/concepts/workloads/controllers/job/#pod-failure-policy
    """
    for rule in job["podFailurePolicy"]["rules"]:
        if disrupted and "onPodConditions" in rule:
            return str(rule["action"])
        if status in rule.get("onExitCodes", {}).get("values", []):
            return str(rule["action"])
    return "Count"


def test_a_lost_node_costs_no_attempt_and_a_wrong_setting_ends_the_job(
    job: dict[str, Any],
) -> None:
    assert _action(job, 143, disrupted=True) == "Ignore"
    actions = {status.value: _action(job, status) for status in ExitStatus if status}
    assert actions == {
        1: "Count",
        7: "Count",
        130: "Count",
        143: "Count",
        2: "FailJob",
        4: "FailJob",
        6: "FailJob",
        8: "FailJob",
        3: "FailIndex",
        5: "FailIndex",
    }


def test_a_pod_is_given_the_time_to_bring_up_its_journals(job: dict[str, Any]) -> None:
    assert job["template"]["spec"]["terminationGracePeriodSeconds"] >= FAREWELL_S + 15


def test_every_pod_has_one_gpu_and_is_not_root(
    job: dict[str, Any], container: dict[str, Any]
) -> None:
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert job["template"]["spec"]["securityContext"]["runAsNonRoot"] is True
    user = job["template"]["spec"]["securityContext"]["runAsUser"]
    dockerfile = (SCRIPTS / "docker/Dockerfile").read_text()
    assert f"\nUSER {user}\n" in dockerfile
    assert 'ENTRYPOINT ["dsocr-batch"]' in dockerfile


def test_every_mount_has_its_volume(job: dict[str, Any], container: dict[str, Any]) -> None:
    volumes = {volume["name"] for volume in job["template"]["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
