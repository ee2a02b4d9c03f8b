"""Weights come whole from the Hub, whatever the network, the Hub or the disk do meanwhile."""

from __future__ import annotations

import json
import os
import random
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from checkpoints import COMMIT, SHARD, checkpoint, pointer, write
from command import Finished, cli_command, environment, run_cli, wait_until
from dsocr_batch.weights import ARCHITECTURE, CONFIG, find_weights
from hub_server import MODEL, Hub, serving

pytestmark = pytest.mark.slow

LIBRARY_READS_BYTES = 10 << 20
"""``DOWNLOAD_CHUNK_SIZE`` of huggingface_hub 2.4: what comes is written in pieces of that size."""

CUT_BYTES = LIBRARY_READS_BYTES + (5 << 20)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    code = {"README.md": b"read", "modeling_deepseekocr.py": b"code", "assets/a.json": b"{}"}
    with serving({**checkpoint(), "LICENSE": b"MIT", **code}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


@pytest.fixture
def large(hub: Hub) -> bytes:
    """The content of a file of weights that the library writes in several pieces."""
    hub.files.update(checkpoint(random.Random(0).randbytes(24 << 20)))
    return hub.files[SHARD]


def download(*options: str | Path) -> Finished:
    return run_cli("download", "--model", MODEL, *options)


def partial_bytes() -> int:
    home = Path(os.environ["HF_HOME"])
    return sum(path.stat().st_size for path in home.rglob("*.dsocr-partial"))


def files_below(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("hub")
def test_what_a_loader_needs_is_fetched_and_its_folder_printed(tmp_path: Path) -> None:
    done = download()
    assert done.status == 0, done.stderr
    folder = Path(done.stdout.removesuffix("\n"))
    assert files_below(folder) == {*checkpoint(), "LICENSE"}
    assert {name: (folder / name).read_bytes() for name in checkpoint()} == checkpoint()
    assert find_weights(str(folder)).revision == COMMIT
    assert folder.is_relative_to(tmp_path / "home")
    assert "\r" not in done.stderr
    assert "%" not in done.stderr


def test_the_token_goes_to_the_hub_and_nowhere_else(hub: Hub) -> None:
    done = download()
    seen = {(request.path.startswith("/cdn/"), request.token) for request in hub.requests}
    assert seen == {(False, "Bearer hf_secret"), (True, None)}
    assert "hf_secret" not in done.stdout + done.stderr


def test_the_hub_is_asked_for_nothing_but_the_model(hub: Hub) -> None:
    download()
    assert all(MODEL in request.path or "/cdn/" in request.path for request in hub.requests)


def test_a_second_call_compares_checksums_and_fetches_nothing(hub: Hub) -> None:
    folder = Path(download().stdout.strip())
    hub.requests.clear()
    assert download().status == 0
    assert not [request for request in hub.requests if "/resolve/" in request.path]
    damaged = (folder / SHARD).resolve()
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    done = download()
    assert done.status == 0
    assert f"{SHARD} is damaged" in done.stderr
    assert (folder / SHARD).read_bytes() == checkpoint()[SHARD]


def test_a_cut_connection_is_taken_up_where_it_broke(hub: Hub, large: bytes) -> None:
    hub.cuts_after_bytes.append(CUT_BYTES)
    done = download()
    assert done.status == 0, done.stderr
    assert (Path(done.stdout.strip()) / SHARD).read_bytes() == large
    at_cdn = [request.range for request in hub.fetched(SHARD) if request.path.startswith("/cdn/")]
    assert at_cdn == [None, f"bytes={LIBRARY_READS_BYTES}-"]


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGKILL])
def test_a_download_that_is_stopped_goes_on_next_time(
    hub: Hub, large: bytes, by: signal.Signals
) -> None:
    hub.stalls_after_bytes = CUT_BYTES
    with subprocess.Popen(
        cli_command("download", "--model", MODEL),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        wait_until(lambda: partial_bytes() == LIBRARY_READS_BYTES)
        process.send_signal(by)
        _, stderr = process.communicate(timeout=30)
    if by is signal.SIGINT:
        assert process.returncode == 130
        assert "The same command goes on from here" in stderr
        assert "Traceback" not in stderr
    hub.stalls_after_bytes = None
    hub.requests.clear()
    done = download()
    assert done.status == 0, done.stderr
    assert {request.range for request in hub.fetched(SHARD)} == {f"bytes={LIBRARY_READS_BYTES}-"}
    assert (Path(done.stdout.strip()) / SHARD).read_bytes() == large
    assert not partial_bytes()


def test_content_that_is_not_what_the_hub_lists_is_not_kept(hub: Hub) -> None:
    hub.tampered[SHARD] = hub.files[SHARD][:-1] + b"?"
    done = download()
    assert done.status == 5
    assert "another content than the Hub's checksum says" in done.stderr
    assert not [name for name in files_below(Path(os.environ["HF_HOME"])) if len(name) >= 64]
    hub.tampered.clear()
    assert download().status == 0


def test_another_model_is_refused_before_its_weights_are_fetched(hub: Hub) -> None:
    hub.files[CONFIG] = json.dumps({"architectures": ["DeepseekOCR2ForCausalLM"]}).encode()
    done = download()
    assert done.status == 5
    assert f"not ['{ARCHITECTURE}']" in done.stderr
    assert not hub.fetched(SHARD)


@pytest.mark.parametrize(
    "http_status, error_code, status, told",
    [
        (404, "RepoNotFound", 2, "has no model someone/ocr"),
        (404, "RevisionNotFound", 2, "has no revision main"),
        (401, "", 2, "HF_TOKEN"),
        (403, "GatedRepo", 2, "accepted its conditions"),
        (503, "", 5, "status 503"),
    ],
)
def test_what_the_hub_refuses_is_explained(
    hub: Hub, http_status: int, error_code: str, status: int, told: str
) -> None:
    hub.status, hub.error_code = http_status, error_code
    done = download()
    assert done.status == status, done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_a_hub_that_fails_in_the_middle_is_gone_on_with(hub: Hub) -> None:
    hub.status, hub.status_for = 503, "/cdn/"
    done = download()
    assert done.status == 5
    assert "status 503" in done.stderr
    assert "goes on from there" in done.stderr
    hub.status = 200
    assert download().status == 0


@pytest.mark.usefixtures("hub")
def test_without_a_network_the_way_around_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    done = download()
    assert done.status == 5
    assert "refused" in done.stderr
    assert "--model FOLDER" in done.stderr
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = download()
    assert done.status == 5
    assert "HF_HUB_OFFLINE" in done.stderr


@pytest.mark.usefixtures("hub")
def test_without_a_network_what_is_whole_by_size_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = download().stdout
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = download()
    assert (done.status, done.stdout) == (0, folder)
    assert "no checksum was compared" in done.stderr
    (Path(folder.strip()) / SHARD).unlink()
    assert download().status == 5


def test_a_folder_gets_the_files_under_their_names(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "weights"
    done = download("--dir", folder)
    assert (done.status, done.stdout) == (0, f"{folder}\n"), done.stderr
    assert files_below(folder) == {*checkpoint(), "LICENSE"}
    assert find_weights(str(folder)).path == folder
    hub.requests.clear()
    assert download("--dir", folder).status == 0
    assert not [request for request in hub.requests if "/resolve/" in request.path]


def test_the_pointers_of_a_clone_are_replaced_by_what_they_point_to(
    hub: Hub, tmp_path: Path
) -> None:
    clone = write(tmp_path / "clone", {**checkpoint(), SHARD: pointer(hub.files[SHARD])})
    assert download("--dir", clone).status == 0
    assert (clone / SHARD).read_bytes() == hub.files[SHARD]


def test_names_on_the_hub_cannot_leave_the_folder(hub: Hub, tmp_path: Path) -> None:
    hub.files |= {"../outside.json": b"{}", "/outside.json": b"{}", ".hidden.json": b"{}"}
    assert download("--dir", tmp_path / "weights").status == 0
    assert files_below(tmp_path) & {"outside.json", ".hidden.json"} == set()


def test_too_little_space_is_told_before_anything_is_fetched(hub: Hub) -> None:
    hub.claimed_bytes[SHARD] = 10**15
    done = download()
    assert done.status == 6
    assert "1000000.0 GB are to be fetched" in done.stderr
    assert not hub.fetched(CONFIG)


@pytest.mark.usefixtures("large")
def test_a_disk_that_fills_up_is_told_and_gone_on_with(hub: Hub) -> None:
    command = shlex.join(cli_command("download", "--model", MODEL))
    # A limit on the size of files fails a write as a full disk does, with another number.
    limited = ["bash", "-c", f"ulimit -f {(12 << 20) // 1024}; exec {command}"]
    done = subprocess.run(
        limited, check=False, capture_output=True, text=True, timeout=60, env=environment()
    )
    assert done.returncode == 6, done.stderr
    assert "cannot write to" in done.stderr
    assert "goes on from there" in done.stderr
    hub.requests.clear()
    assert download().status == 0
    assert None not in {request.range for request in hub.fetched(SHARD)}


@pytest.mark.usefixtures("hub")
def test_a_folder_that_is_a_file_is_status_6(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    done = download("--dir", tmp_path / "file")
    assert done.status == 6
    assert "cannot write to" in done.stderr


def test_two_downloads_at_once_fetch_once(hub: Hub) -> None:
    command = cli_command("download", "--model", MODEL)
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment())
        for _ in range(2)
    ]
    printed = {process.communicate(timeout=60)[0] for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert len(printed) == 1
    assert len([request for request in hub.fetched(SHARD) if "/cdn/" in request.path]) == 1


@pytest.mark.usefixtures("hub")
def test_a_terminal_gets_a_bar() -> None:
    ours, theirs = os.openpty()
    with subprocess.Popen(
        cli_command("download", "--model", MODEL),
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        env={**environment(), "TERM": "xterm"},
    ) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                shown += os.read(ours, 1 << 16)
            except OSError:  # how Linux says that the other end is closed
                break
    os.close(ours)
    assert process.returncode == 0
    assert b"100%" in shown


def test_asking_for_help_imports_no_library_of_the_hub() -> None:
    code = "import sys, dsocr_batch.cli; print('huggingface_hub' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"
