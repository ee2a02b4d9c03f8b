"""scripts/aws/bootstrap.sh: a staged install, with a machine that is made of stand-ins."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dsocr_batch.pipeline.publish import FAREWELL_S
from stub_programs import StubPrograms

AWS = Path(__file__).parents[1] / "scripts" / "aws"
PACKAGE = "git+https://example.invalid/dsocr-batch@v0.1.0"

FAKE_PYTHON = """
case $1 in
-c) exit 0 ;;
-m) if [ "$2" = venv ]; then mkdir -p "$3/bin"; ln -s "$0" "$3/bin/python"; fi ;;
esac
"""


class Machine:
    """A machine to be made ready: its programs, and the folder that stands for its root."""

    def __init__(self, tmp_path: Path, *, driver: str = "580.95.05", gpus: int = 4) -> None:
        self.root = tmp_path / "root"
        self.corpus = tmp_path / "corpus"
        self.corpus.mkdir()
        self.programs = StubPrograms(tmp_path)
        self.programs.add("nvidia-smi", f"printf '{driver}\\n%.0s' {{1..{gpus}}}")
        self.programs.add("python3.12", FAKE_PYTHON)
        self.programs.add("nproc", "echo 48")
        self.programs.add("id", 'test -e "$DESTDIR/user"')
        self.programs.add("useradd", 'mkdir -p "$DESTDIR"; touch "$DESTDIR/user"')
        self.programs.add("systemctl", '[ "$1" != is-active ] || test -e "$DESTDIR/started"')
        for name in ("gcc", "chown", "runuser"):
            self.programs.add(name)

    def bootstrap(self, *options: str) -> subprocess.CompletedProcess[str]:
        return self.programs.run(
            *(AWS / "bootstrap.sh", "--package", PACKAGE),
            *("--input-dir", str(self.corpus), "--output-dir", "/texts", *options),
            environment={"DESTDIR": str(self.root)},
        )

    def setting(self, name: str) -> dict[str, str]:
        text = (self.root / "etc/dsocr-batch" / name).read_text()
        return dict(line.split("=", 1) for line in text.splitlines())

    def changes(self) -> list[str]:
        asks = ("nvidia-smi", "nproc", "id ", "python3.12 -c", "systemctl is-active")
        return [call for call in self.programs.calls() if not call.startswith(asks)]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_every_gpu_becomes_a_shard_with_its_part_of_the_cores(machine: Machine) -> None:
    done = machine.bootstrap("--num-shards", "8", "--first-shard", "4")
    assert done.returncode == 0, done.stderr
    run = machine.setting("run.env")
    assert run["NUM_SHARDS"] == "8"
    assert run["INPUT_DIR"] == str(machine.corpus)
    assert run["OUTPUT_DIR"] == "/texts"
    assert [machine.setting(f"gpu-{gpu}.env") for gpu in range(4)] == [
        {"SHARD_INDEX": str(4 + gpu), "CPU_WORKERS": "11"} for gpu in range(4)
    ]
    assert not (machine.root / "etc/dsocr-batch/gpu-4.env").exists()


def test_the_unit_finds_a_setting_for_each_variable_it_uses(machine: Machine) -> None:
    machine.bootstrap()
    unit = (machine.root / "etc/systemd/system/dsocr-batch@.service").read_text()
    settings = machine.setting("run.env") | machine.setting("gpu-0.env")
    used = {word.strip("${}") for word in unit.split() if word.startswith("$")}
    assert used == set(settings)


def test_a_corpus_and_texts_in_a_bucket_need_no_folder(machine: Machine) -> None:
    urls = {"INPUT_DIR": "s3://library/corpus", "OUTPUT_DIR": "s3://library/texts"}
    done = machine.bootstrap("--input-dir", urls["INPUT_DIR"], "--output-dir", urls["OUTPUT_DIR"])
    assert done.returncode == 0, done.stderr
    assert urls.items() <= machine.setting("run.env").items()
    changes = machine.changes()
    assert any(
        call.endswith(f"pip install --upgrade dsocr-batch[vllm,s3] @ {PACKAGE}") for call in changes
    )
    assert any(call.startswith("chown ") for call in changes)
    assert not any("s3://" in call for call in changes)
    assert list(machine.root.rglob("*library*")) == []


def test_objects_are_kept_on_a_disk_of_the_shards_own() -> None:
    unit = _settings_of_unit()
    assert "%i" in unit["CacheDirectory"]
    assert f"TMPDIR=%C/{unit['CacheDirectory']}" in unit["Environment"]


def test_a_shard_is_given_the_time_to_bring_up_its_journals() -> None:
    assert int(_settings_of_unit()["TimeoutStopSec"]) >= FAREWELL_S + 15


def _settings_of_unit() -> dict[str, str]:
    """Return the settings of the unit; the last one of each name."""
    lines = (AWS / "dsocr-batch@.service").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if re.match(r"[A-Z]\w+=", line))


def test_a_second_bootstrap_only_checks_the_weights(machine: Machine) -> None:
    machine.bootstrap()
    assert any("pip install" in call for call in machine.changes())
    again = machine.bootstrap()
    assert again.returncode == 0, again.stderr
    [check] = machine.changes()
    assert check.endswith(f"download --dir {machine.root}/opt/dsocr-batch/weights")


def test_a_new_package_is_installed_and_running_shards_resume_with_new_settings(
    machine: Machine,
) -> None:
    machine.bootstrap("--start")
    (machine.root / "started").touch()
    machine.changes()
    machine.bootstrap("--start", "--run-options", "--mode grounded", "--package", "/new.whl")
    changes = machine.changes()
    assert any(call.endswith("install --upgrade /new.whl[vllm,s3]") for call in changes)
    assert "systemctl restart dsocr-batch@3.service" in changes
    assert machine.setting("run.env")["RUN_OPTIONS"] == "--mode grounded"


@pytest.mark.parametrize(
    "system, command",
    [
        ("ubuntu", "apt-get install --yes python3.12"),
        ("amzn", "dnf install --assumeyes python3.12"),
    ],
)
def test_python_is_installed_where_it_is_missing(
    machine: Machine, system: str, command: str
) -> None:
    release = machine.root / "etc/os-release"
    release.parent.mkdir(parents=True)
    release.write_text(f'NAME="Some Linux"\nID={system}\n')
    machine.programs.add("python3.12", "[ $1 != -c ] || exit 1" + FAKE_PYTHON)
    for name in ("apt-get", "dnf"):
        machine.programs.add(name)
    machine.bootstrap()
    assert any(call.startswith(command) for call in machine.changes())


def test_on_an_unknown_system_python_is_asked_for(machine: Machine) -> None:
    release = machine.root / "etc/os-release"
    release.parent.mkdir(parents=True)
    release.write_text("ID=plan9\n")
    machine.programs.add("python3.12", "exit 1")
    done = machine.bootstrap()
    assert done.returncode == 2
    assert "install Python 3.12" in done.stderr
    assert machine.changes() == []


def test_a_dry_run_changes_nothing(machine: Machine) -> None:
    assert machine.bootstrap("--dry-run", "--start").returncode == 0
    assert machine.changes() == []
    assert not machine.root.exists()


def test_a_dry_run_names_the_commands_of_the_real_one(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    shown = Machine(tmp_path / "a").bootstrap("--dry-run", "--start").stdout
    done = Machine(tmp_path / "b").bootstrap("--start").stdout
    commands = [line for line in shown.splitlines() if line.startswith("+")]
    assert len(commands) > 10
    assert shown.replace(f"{tmp_path}/a", "") == done.replace(f"{tmp_path}/b", "")


def test_shards_start_only_when_asked(machine: Machine) -> None:
    done = machine.bootstrap()
    assert "ready; to start: systemctl enable --now dsocr-batch@0.service" in done.stdout
    assert not any("enable" in call for call in machine.changes())
    machine.bootstrap("--start")
    assert "systemctl enable --now dsocr-batch@3.service" in machine.changes()


@pytest.mark.parametrize(
    "options, told",
    [
        (["--num-shards", "3"], "do not fit into 3 shards"),
        (["--num-shards", "8", "--first-shard", "5"], "GPUs 5 to 8 do not fit into 8 shards"),
        (["--num-shards", "four"], "whole numbers"),
        (["--frist-shard", "5"], "unknown option --frist-shard"),
        (["--input-dir", "/not/there"], "/not/there is not there"),
        (["--output-dir", 'a"b'], "no quotes"),
        (["--package"], "--package needs a value"),
        (["--min-driver", "581"], "NVIDIA driver 580.95.05 is older than 581"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_changes(
    machine: Machine, options: list[str], told: str
) -> None:
    done = machine.bootstrap(*options)
    assert done.returncode == 2
    assert told in done.stderr
    assert machine.changes() == []
    assert not machine.root.exists()


def test_an_old_driver_is_compared_by_number_and_not_by_letter(tmp_path: Path) -> None:
    assert Machine(tmp_path, driver="1000.1").bootstrap().returncode == 0


def test_a_machine_without_a_driver_is_refused(machine: Machine) -> None:
    machine.programs.add("nvidia-smi", "echo no devices were found; exit 9")
    done = machine.bootstrap()
    assert done.returncode == 2
    assert "nvidia-smi fails: no devices were found" in done.stderr


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    text = (AWS / "dsocr-batch@.service").read_text()
    # The program and the user are on the other machine.
    text = text.replace("/opt/dsocr-batch/venv/bin/dsocr-batch", sys.executable)
    unit = tmp_path / "dsocr-batch@0.service"
    unit.write_text(text.replace("User=dsocr", "User=root"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ,
    )
    assert (done.returncode, done.stderr) == (0, "")
