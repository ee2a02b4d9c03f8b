"""Whole runs against a server that misbehaves: nothing is lost, nothing is doubled."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
import trustme

from command import Finished, cli_command, environment, run_cli, wait_until
from hostile_server import (
    Behaviour,
    HostileServer,
    Reply,
    Request,
    drops_after,
    event_line,
    pieces,
    reads,
    says,
    waits,
)
from outputs import comparable, record_of

PAGES = 20
"""Of the corpus, without its blank one."""
AWAY_S = 8.0
"""Longer than a page is tried: 1 + 2 + 4 s of pauses at most."""
KEY = "sk-very-secret"


def arguments(corpus: Path, out: Path, server: HostileServer) -> list[str | Path]:
    return [
        "run",
        *("--input-dir", corpus, "--recursive", "--output-dir", out),
        *("--engine", "openai", "--base-url", server.url, "--batch-pages", "4"),
    ]


def run(corpus: Path, out: Path, server: HostileServer, *options: str) -> Finished:
    return run_cli(*arguments(corpus, out, server), *options, timeout_s=90)


@pytest.fixture
def undisturbed(corpus: Path, tmp_path: Path) -> dict[str, object]:
    with HostileServer() as server:
        done = run(corpus, tmp_path / "undisturbed", server)
    assert done.status == 0, done.stderr
    return comparable(tmp_path / "undisturbed")


def test_a_run_over_http_reads_every_page_once(corpus: Path, out: Path) -> None:
    with HostileServer() as server:
        done = run(corpus, out, server)
    assert done.status == 0, done.stderr
    assert set(Counter(server.read).values()) == {1}
    assert len(server.read) == PAGES
    record = record_of(out, "sub/with blank")
    assert (record["engine"], record["model"]) == ("openai", "dsocr")
    assert [page["state"] for page in record["pages"]] == ["ok", "blank", "ok"]
    assert record["pages"][0]["attempts"][0]["output_tokens"] > 0


def test_pages_over_tls_that_end_with_their_connection_are_read(
    corpus: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ends_by_closing(request: Request, reply: Reply) -> None:
        await reply.head(200, "text/event-stream", "Connection: close")
        for piece in [*pieces(request.text), None]:
            finish_reason = "stop" if piece is None else None
            choice = {"delta": {"content": piece}, "finish_reason": finish_reason}
            await asyncio.sleep(0.03)
            await reply.raw(event_line({"choices": [choice]}))
        reply.writer.close()

    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    with HostileServer(otherwise=ends_by_closing, tls=tls) as server:
        done = run(corpus, out, server)
    assert done.status == 0, done.stderr
    assert len(server.read) == PAGES


@pytest.mark.slow
def test_a_stormy_run_ends_with_the_same_text(
    corpus: Path, out: Path, undisturbed: dict[str, object]
) -> None:
    storm: list[Behaviour] = [
        says(500, "oops"),
        says(429, "slow down", "Retry-After: 0"),
        drops_after(0),
        drops_after(3),
        waits(0.3, drops_after(5)),
    ]

    async def first_fails(request: Request, reply: Reply) -> None:
        is_first = reply.server.read.count(request.text) == 1
        await (storm[request.picture[-9] % len(storm)] if is_first else reads)(request, reply)

    with HostileServer(otherwise=first_fails) as server:
        done = run(corpus, out, server)
    assert done.status == 0, done.stderr
    assert set(Counter(server.read).values()) == {2}
    assert comparable(out) == undisturbed


@pytest.mark.slow
def test_a_server_that_is_killed_and_comes_back_does_not_end_the_run(
    corpus: Path, out: Path, undisturbed: dict[str, object]
) -> None:
    with HostileServer(otherwise=waits(0.05)) as server:
        command = cli_command(*arguments(corpus, out, server))
        with subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env=environment()
        ) as process:
            wait_until(lambda: len(server.read) >= 6)
            server.vanish()
            time.sleep(AWAY_S)
            server.listen()
            _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "engine lost" in errors
    assert comparable(out) == undisturbed


@pytest.mark.slow
def test_a_second_run_asks_only_for_what_the_first_did_not_get(
    corpus: Path, out: Path, undisturbed: dict[str, object]
) -> None:
    poisoned: list[bytes] = []

    async def chokes_on_the_fourth(request: Request, reply: Reply) -> None:
        if len(reply.server.pages) == 4:
            poisoned.append(request.picture)
        await (says(500, "bad page") if request.picture in poisoned else reads)(request, reply)

    with HostileServer(otherwise=chokes_on_the_fourth) as server:
        first = run(corpus, out, server)
    assert first.status == 3, first.stderr
    assert "bad page" in first.stderr
    with HostileServer() as server:
        second = run(corpus, out, server)
        assert [page.picture for page in server.pages] == poisoned
    assert second.status == 0, second.stderr
    assert comparable(out) == undisturbed


@pytest.mark.slow
def test_another_model_of_the_same_name_is_not_mixed_in(corpus: Path, out: Path) -> None:
    with HostileServer() as server:
        run(corpus, out, server, "--max-pages", "1")
        server.root = "other-weights"
        done = run(corpus, out, server)
    assert done.status == 2
    assert 'settings.root: "weights" in the output, "other-weights" now' in done.stderr


@pytest.mark.slow
def test_the_key_is_in_no_file_and_in_no_message(
    corpus: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSOCR_API_KEY", KEY)
    with HostileServer(key=KEY, plan={2: says(500, f"bad luck, {KEY}")}) as server:
        done = run(corpus, out, server, "--log-level", "debug")
    assert done.status == 0, done.stderr
    assert "bad luck" in done.stderr
    assert KEY not in done.stderr
    files = [path for path in out.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


def test_a_dry_run_asks_the_server_and_gives_it_no_page(corpus: Path, out: Path) -> None:
    with HostileServer() as server:
        done = run(corpus, out, server, "--dry-run")
    assert done.status == 0, done.stderr
    assert server.requests
    assert not server.pages


def test_without_a_server_the_run_ends_before_it_begins(corpus: Path, out: Path) -> None:
    with HostileServer() as server:
        pass
    done = run(corpus, out, server)
    assert done.status == 5
    assert "Is it started" in done.stderr
    assert not out.exists()


def test_a_mode_that_the_server_would_ignore_ends_the_run_before_it_begins(
    corpus: Path, out: Path
) -> None:
    with HostileServer(owned_by="vllm") as server:
        done = run(corpus, out, server, "--vision-mode", "large")
    assert done.status == 2
    assert "--vision-mode" in done.stderr
    assert not out.exists()
