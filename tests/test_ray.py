"""``run --ray`` on a real cluster whose nodes join, are lost, and see nothing of each other."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from command import environment, read, read_command, running, wait_until
from documents import write_pdf
from dsocr_batch.cluster.connect import connect
from dsocr_batch.errors import EngineUnusable, UsageError
from outputs import comparable, pages_read
from ray_cluster import RayCluster, processes_of, ray_cluster
from s3_server import BUCKET, S3Server, s3_serving

pytestmark = pytest.mark.slow

Script = Callable[..., Path]

PATIENCE_S = 90.0

TAKE_NODES = """
import logging, ray, sys, time
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
ray.init(address=sys.argv[1], log_to_driver=False, logging_level=logging.ERROR)
@ray.remote(num_cpus=1)
class Other:
    def is_here(self):
        return True
nodes = [ray.nodes()[int(place)]["NodeID"] for place in sys.argv[2:]]
places = [NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes]
others = [Other.options(scheduling_strategy=place).remote() for place in places]
ray.get([other.is_here.remote() for other in others])
print("all are taken", flush=True)
time.sleep(600)
"""

IMPATIENT = """
from dsocr_batch.cluster import engine
from dsocr_batch.cli import main
engine.ROOM_PATIENCE_S = 3
main()
"""


@pytest.fixture(scope="module")
def store() -> Iterator[S3Server]:
    with s3_serving() as server:
        yield server


@pytest.fixture(scope="module")
def lasting(store: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """A cluster whose nodes may read a bucket and keep temporary files in a folder of theirs."""
    environment = {**store.env, "TMPDIR": str(tmp_path_factory.mktemp("nodes"))}
    with ray_cluster(environment=environment) as cluster:
        cluster.add_node()
        yield cluster


@pytest.fixture
def cluster(lasting: RayCluster, monkeypatch: pytest.MonkeyPatch) -> RayCluster:
    """Two nodes of one CPU each, which let this process in."""
    let_in(monkeypatch, lasting)
    return lasting


@pytest.fixture
def long_corpus(tmp_path: Path) -> Path:
    """140 pages, most of them in one document."""
    folder = tmp_path / "in"
    for number, pages in enumerate((100, 20, 10, 10)):
        write_pdf(folder / f"doc{number}.pdf", [f"{number}, {page}" for page in range(pages)])
    return folder


def let_in(monkeypatch: pytest.MonkeyPatch, cluster: RayCluster) -> None:
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)


def report_of(out: Path) -> dict[str, Any]:
    (newest,) = sorted((out / ".dsocr" / "runs").glob("*.json"))[-1:]
    report: dict[str, Any] = json.loads(newest.read_bytes())
    return report


def ours(cluster: RayCluster) -> list[psutil.Process]:
    """Return what runs on the nodes because of us."""

    def is_ours(process: psutil.Process) -> bool:
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            program, *arguments = process.cmdline() or [""]
            return "PageActor" in program or "dsocr_batch.render.worker" in arguments
        return False

    return [p for session in cluster.sessions for p in processes_of(session) if is_ours(p)]


def actors(cluster: RayCluster) -> list[psutil.Process]:
    return [process for process in ours(cluster) if "PageActor" in process.cmdline()[0]]


def test_a_run_on_two_nodes_gives_what_a_run_without_ray_gives_and_leaves_no_process(
    corpus: Path, out: Path, script: Script, tmp_path: Path, cluster: RayCluster
) -> None:
    (corpus / "broken.pdf").write_bytes(b"not a PDF")
    lost = tmp_path / "lost"  # by one node: a page that is lost by both is failed
    losing = script(
        pages={"doc2.pdf#2": {"lost_once": str(lost)}, "doc3.pdf#1": {"fail": "out of luck"}}
    )
    options = ("--mode", "grounded", "--save-images", "--save-figures")
    done = read(corpus, losing, out, "--ray", cluster.address, *options)
    assert done.status == 3, done.stderr
    assert done.stdout == ""
    assert "restart 1 of 3" in done.stderr
    wait_until(lambda: not ours(cluster), timeout_s=5)
    assert len(pages_read(tmp_path)) == 19
    lost.unlink()
    read(corpus, losing, tmp_path / "plain", *options)
    assert comparable(out) == comparable(tmp_path / "plain")
    ray, plain = report_of(out), report_of(tmp_path / "plain")
    assert ray.keys() == plain.keys()
    for told in ("pages", "documents", "engine_losses", "lanes_lost", "failures"):
        assert ray[told] == plain[told]


@pytest.mark.long
def test_documents_in_a_bucket_are_fetched_by_the_nodes_and_nothing_stays_there(
    corpus: Path, out: Path, script: Script, tmp_path: Path, cluster: RayCluster, store: S3Server
) -> None:
    store.put_tree(corpus, "in")
    done = read(f"s3://{BUCKET}/in", script(), out, "--ray", cluster.address)
    assert done.status == 0, done.stderr
    assert not list(Path(cluster.environment["TMPDIR"]).glob("dsocr-batch-*"))
    read(corpus, script(), tmp_path / "plain")
    assert texts(out) == texts(tmp_path / "plain")


def texts(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*.md"))}


@pytest.mark.long
def test_a_long_document_is_shared_by_the_nodes(
    long_corpus: Path, out: Path, script: Script, tmp_path: Path, cluster: RayCluster
) -> None:
    slow = script(delay_s=0.3, by_process=str(tmp_path))
    done = read(long_corpus, slow, out, "--ray", cluster.address, timeout_s=PATIENCE_S)
    assert done.status == 0, done.stderr
    shares = [log.read_text().count("doc0.pdf") for log in tmp_path.glob("process-*.log")]
    assert len(shares) == 2
    assert sum(shares) == 100
    assert min(shares) > 25


def test_a_node_joins_another_is_killed_and_the_result_is_complete_and_identical(
    long_corpus: Path,
    out: Path,
    script: Script,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ray_cluster(head_cpus=0) as cluster:
        let_in(monkeypatch, cluster)
        doomed = cluster.add_node()
        gate = tmp_path / "gate"
        waiting = {f"doc0.pdf#{number}": {"wait_for": str(gate)} for number in range(20, 101)}
        slow = script(delay_s=0.1, pages=waiting)
        with running(long_corpus, slow, out, "--ray", cluster.address) as process:
            wait_until(lambda: len(pages_read(tmp_path)) > 10)
            cluster.add_node()
            wait_until(lambda: len(actors(cluster)) == 2)
            doomed.kill()
            gate.touch()
            assert process.wait(PATIENCE_S) == 0
    times_read = Counter(pages_read(tmp_path))
    assert len(times_read) == 140
    assert max(times_read.values()) <= 2
    assert report_of(out)["lanes_lost"] == 1
    assert report_of(out)["pages"] == {"ok": 140}
    read(long_corpus, script(), tmp_path / "plain")
    assert comparable(out) == comparable(tmp_path / "plain")


@pytest.mark.long
def test_an_actor_that_is_killed_is_replaced(
    long_corpus: Path, out: Path, script: Script, tmp_path: Path, cluster: RayCluster
) -> None:
    with running(long_corpus, script(delay_s=0.3), out, "--ray", cluster.address) as process:
        wait_until(lambda: len(pages_read(tmp_path)) > 20)
        for actor in actors(cluster):
            actor.kill()
        assert process.wait(PATIENCE_S) == 0
    assert report_of(out)["lanes_lost"] == 2
    assert report_of(out)["pages"] == {"ok": 140}


@pytest.mark.parametrize(
    "kind, status",
    [(signal.SIGTERM, 143), pytest.param(signal.SIGKILL, -9, marks=pytest.mark.long)],
)
def test_a_stopped_run_leaves_no_process_on_the_nodes_and_goes_on_where_it_stopped(
    long_corpus: Path,
    out: Path,
    script: Script,
    tmp_path: Path,
    cluster: RayCluster,
    kind: signal.Signals,
    status: int,
) -> None:
    ray = ("--ray", cluster.address)
    with running(long_corpus, script(delay_s=0.3), out, *ray) as process:
        wait_until(lambda: len(pages_read(tmp_path)) > 20)
        assert ours(cluster)
        process.send_signal(kind)
        assert process.wait(15) == status
        wait_until(lambda: not ours(cluster), timeout_s=10)
    again = read(long_corpus, script(), out, *ray)
    assert again.status == 0, again.stderr
    times_read = Counter(pages_read(tmp_path))
    assert len(times_read) == 140
    assert times_read.total() - 140 <= (16 if kind is signal.SIGKILL else 0)


@contextmanager
def taken(cluster: RayCluster, *nodes: int) -> Iterator[None]:
    """Let another job have all CPUs of some nodes, by their places in Ray's list."""
    command = [sys.executable, "-c", TAKE_NODES, cluster.address, *map(str, nodes)]
    other_job = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, **cluster.environment}
    )
    with other_job:
        try:
            assert other_job.stdout is not None
            assert "all are taken\n" in other_job.stdout
            yield
        finally:
            other_job.kill()


# One of the two is the one that is asked first.
@pytest.mark.long
@pytest.mark.parametrize("place", [0, 1])
def test_a_node_that_others_use_does_not_keep_a_free_one_from_reading(
    corpus: Path, out: Path, script: Script, tmp_path: Path, cluster: RayCluster, place: int
) -> None:
    with taken(cluster, place):
        done = read(corpus, script(by_process=str(tmp_path)), out, "--ray", cluster.address)
    assert done.status == 0, done.stderr
    assert len(list(tmp_path.glob("process-*.log"))) == 1


@pytest.mark.long
def test_nodes_that_others_use_all_the_time_end_the_run_with_status_5(
    corpus: Path, out: Path, script: Script, cluster: RayCluster
) -> None:
    with taken(cluster, 0, 1):
        done = read_impatiently(corpus, script(), out, cluster)
    assert done.returncode == 5, done.stderr
    assert "no node of the Ray cluster has had room" in done.stderr


@pytest.mark.long
def test_why_a_free_node_refused_is_told_if_others_use_the_rest(
    corpus: Path, out: Path, tmp_path: Path, cluster: RayCluster
) -> None:
    with taken(cluster, 0):
        done = read_impatiently(corpus, tmp_path / "missing.json", out, cluster)
    assert done.returncode == 5, done.stderr
    assert "no node of the Ray cluster has had room" in done.stderr
    assert "missing.json" in done.stderr


def read_impatiently(
    corpus: Path, script: Path, out: Path, cluster: RayCluster
) -> subprocess.CompletedProcess[str]:
    """Run with 3 s in place of ten minutes for a node to have room."""
    python, _m, _module, *arguments = read_command(corpus, script, out, "--ray", cluster.address)
    return subprocess.run(
        [python, "-c", IMPATIENT, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(),
    )


@pytest.mark.long
def test_a_node_on_which_nothing_is_installed_does_not_keep_another_from_reading(
    corpus: Path, out: Path, script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traps = [tmp_path / name / "dsocr_batch.py" for name in ("one", "another")]
    with ray_cluster(head_cpus=0) as cluster:
        let_in(monkeypatch, cluster)
        for trap in traps:
            trap.parent.mkdir()
            cluster.add_node(environment={"PYTHONPATH": str(trap.parent)})
        ray = ("--ray", cluster.address)
        for trap in traps:  # one of them is on the node that is asked first
            trap.write_text("raise ImportError('nothing is installed here')", encoding="utf-8")
            done = read(corpus, script(delay_s=0.5), out / trap.parent.name, *ray)
            assert done.status == 0, done.stderr
            assert "its place is given up" in done.stderr
            trap.unlink()
        for trap in traps:
            trap.write_text("raise ImportError('nothing is installed here')", encoding="utf-8")
        done = read(corpus, script(), out / "none", *ray)
    assert done.status == 5, done.stderr
    assert "nothing is installed here" in done.stderr


@pytest.mark.long
def test_an_engine_that_no_node_can_start_ends_the_run_with_its_reason(
    corpus: Path, out: Path, script: Script, cluster: RayCluster
) -> None:
    unusable = script(unusable="the model is made of cheese")
    done = read(corpus, unusable, out, "--ray", cluster.address)
    assert done.status == 5, done.stderr
    assert "the model is made of cheese" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.long
def test_an_image_that_a_node_cannot_write_ends_the_run_with_status_6(
    corpus: Path, out: Path, script: Script, cluster: RayCluster
) -> None:
    (out / "doc3_assets" / "page-0001.png").mkdir(parents=True)
    done = read(corpus, script(), out, "--ray", cluster.address, "--save-images")
    assert done.status == 6, done.stderr
    assert "page-0001.png" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.long
def test_modules_beside_the_documents_are_not_run_on_the_nodes(
    corpus: Path,
    out: Path,
    script: Script,
    cluster: RayCluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trap = tmp_path / "trap"
    trap.mkdir()
    for module in ("json", "pymupdf", "dsocr_scripted"):
        (trap / f"{module}.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\n")
    monkeypatch.chdir(trap)
    command = Path(sys.executable).with_name("dsocr-batch")  # python -m would look here itself
    done = subprocess.run(
        [
            *(command, "run", "--input-dir", corpus, "--output-dir", out),
            *("--engine", "scripted", "--model", script(), "--ray", cluster.address),
        ],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONSAFEPATH": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "sprung").exists()


@pytest.mark.long
def test_auto_asks_the_environment_and_refuses_to_choose_a_cpu_engine_by_itself(
    corpus: Path,
    out: Path,
    script: Script,
    cluster: RayCluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    done = read(corpus, script(), out, "--ray", "auto", "--engine", "auto")
    assert done.status == 5, done.stderr
    assert "no node of the Ray cluster has a GPU" in done.stderr


@pytest.mark.long
def test_more_cpus_than_a_node_has_are_refused(
    corpus: Path, out: Path, script: Script, cluster: RayCluster
) -> None:
    done = read(corpus, script(), out, "--ray", cluster.address, "--ray-cpus", "99")
    assert done.status == 5, done.stderr
    assert "99 CPUs" in done.stderr


@pytest.mark.long
def test_a_cluster_that_does_not_let_us_in_ends_the_run_with_status_5(
    corpus: Path,
    out: Path,
    script: Script,
    cluster: RayCluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "wrong")
    done = read(corpus, script(), out, "--ray", cluster.address)
    assert done.status == 5, done.stderr
    assert "does not let us in" in done.stderr
    assert done.stdout == ""


def test_an_address_at_which_nobody_answers_is_told_at_once() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(EngineUnusable, match="nobody answers"):
            connect(f"127.0.0.1:{unused.getsockname()[1]}")


@pytest.mark.parametrize("address", ["ray://host:10001", "local", "host", "host:port", "host:1"])
def test_an_address_of_another_form_is_wrong_usage(address: str) -> None:
    with pytest.raises(UsageError, match=address):
        connect(address)


def test_without_the_extra_the_command_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EngineUnusable, match=r"dsocr-batch\[ray\]"):
        connect("auto")
