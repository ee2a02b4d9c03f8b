from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsocr_batch.errors import SettingsConflict
from dsocr_batch.output.settings import claim_settings, settings_digest

A: dict[str, Any] = {"mode": "clean", "dpi": 144, "engine": {"model": "m", "temperature": 0.0}}
B: dict[str, Any] = {**A, "dpi": 200, "engine": {"model": "m", "max_tokens": None}}


def claim(
    output_dir: Path, settings: dict[str, Any], *, overwrite: bool = False, mixed: bool = False
) -> frozenset[str]:
    return claim_settings(output_dir, settings, overwrite=overwrite, allow_mixed=mixed)


def test_the_first_run_claims_the_output_and_the_same_settings_fit_ever_after(
    tmp_path: Path,
) -> None:
    for _ in range(2):
        assert claim(tmp_path / "out", A) == frozenset()
    assert claim(tmp_path / "out", dict(reversed(A.items()))) == frozenset()


def test_other_settings_are_refused_with_each_difference_and_the_ways_out(tmp_path: Path) -> None:
    claim(tmp_path, A)
    with pytest.raises(SettingsConflict) as caught:
        claim(tmp_path, B)
    assert str(caught.value).splitlines()[1:4] == [
        "  dpi: 144 in the output, 200 now",
        "  engine.max_tokens: not set in the output, null now",
        "  engine.temperature: 0.0 in the output, not set now",
    ]
    for way_out in ("--overwrite", "--allow-mixed", "--output-dir"):
        assert way_out in str(caught.value)


def test_a_killed_overwriting_run_can_be_resumed_without_the_flag(tmp_path: Path) -> None:
    claim(tmp_path, A)
    given_up = frozenset({settings_digest(A)})
    assert claim(tmp_path, B, overwrite=True) == given_up
    assert claim(tmp_path, B) == given_up
    assert claim(tmp_path, B, overwrite=True) == given_up
    with pytest.raises(SettingsConflict):
        claim(tmp_path, A)


def test_going_back_to_old_settings_makes_them_current_again(tmp_path: Path) -> None:
    claim(tmp_path, A)
    claim(tmp_path, B, overwrite=True)
    assert claim(tmp_path, A, overwrite=True) == {settings_digest(B)}
    assert claim(tmp_path, A) == {settings_digest(B)}


def test_mixing_leaves_the_directory_its_settings(tmp_path: Path) -> None:
    claim(tmp_path, A)
    assert claim(tmp_path, B, mixed=True) == frozenset()
    assert claim(tmp_path, A) == frozenset()
    with pytest.raises(SettingsConflict):
        claim(tmp_path, B)


def test_mixing_in_superseded_settings_counts_their_results_as_done(tmp_path: Path) -> None:
    claim(tmp_path, A)
    claim(tmp_path, B, overwrite=True)
    assert claim(tmp_path, A, mixed=True) == frozenset()


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"digest": "x", "settings": {}}', b"\xff"])
def test_a_damaged_file_is_refused_until_the_user_decides(tmp_path: Path, damage: bytes) -> None:
    claim(tmp_path, A)
    path = tmp_path / ".dsocr/settings.json"
    for overwrite, mixed in ((True, False), (False, True)):
        path.write_bytes(damage)
        with pytest.raises(SettingsConflict, match="damaged"):
            claim(tmp_path, A)
        assert path.read_bytes() == damage
        claim(tmp_path, A, overwrite=overwrite, mixed=mixed)
        assert claim(tmp_path, A) == frozenset()


def test_a_changed_value_in_the_file_is_damage(tmp_path: Path) -> None:
    claim(tmp_path, A)
    path = tmp_path / ".dsocr/settings.json"
    path.write_bytes(path.read_bytes().replace(b"144", b"145"))
    with pytest.raises(SettingsConflict, match="damaged"):
        claim(tmp_path, A)


def test_what_a_killed_run_left_of_the_file_is_removed(tmp_path: Path) -> None:
    claim(tmp_path, A)
    left = tmp_path / ".dsocr/.settings.json.0123456789abcdef.tmp"
    left.write_bytes(b"half")
    claim(tmp_path, A)
    assert not left.exists()


def test_a_prompt_that_utf8_cannot_hold_fits_itself(tmp_path: Path) -> None:
    settings = {**A, "prompt": "caf\udce9"}
    for _ in range(2):
        assert claim(tmp_path, settings) == frozenset()


def test_the_digest_does_not_change_between_versions() -> None:
    # python3 -c 'import json, hashlib; print(hashlib.sha256(json.dumps(A, sort_keys=True,
    #             separators=(",", ":")).encode()).hexdigest())'
    assert settings_digest(A) == "7e2a913950014070a280fc6f37694983088ca404901f47184dd74b54f8412052"


scalars = st.none() | st.booleans() | st.integers() | st.floats(-1e9, 1e9) | st.text()


@given(
    settings=st.dictionaries(st.text(), scalars, max_size=5), name=st.text(), value=st.integers()
)
def test_the_digest_ignores_order_and_nothing_else(
    settings: dict[str, Any], name: str, value: int
) -> None:
    shuffled = dict(reversed(settings.items()))
    assert settings_digest(shuffled) == settings_digest(settings)
    changed = {**settings, name: {"nested": value}}
    assert settings_digest(changed) != settings_digest(settings)


CLAIM = """
import sys, time
from pathlib import Path
from dsocr_batch.errors import SettingsConflict
from dsocr_batch.output.settings import claim_settings
out, me = Path(sys.argv[1]), int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
for turn in range(20):
    try:
        claim_settings(out / str(turn), {"run": me % 2}, overwrite=False, allow_mixed=False)
    except SettingsConflict:
        print("refused", turn)
    else:
        print("claimed", turn)
    claim_settings(out / "again" / str(turn), {"run": me % 2}, overwrite=True, allow_mixed=False)
"""


def test_of_shards_that_start_together_those_that_agree_go_on(tmp_path: Path) -> None:
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIM, str(tmp_path), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    for run in runs:
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
    for run in runs:
        assert run.stdin is not None
        run.stdin.write("go\n")
        run.stdin.flush()
    answers = [set(run.communicate(timeout=60)[0].splitlines()) for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0, 0]
    even, odd = answers[0], answers[1]
    assert answers[2:] == [even, odd]
    for turn in range(20):
        assert (f"claimed {turn}" in even) != (f"claimed {turn}" in odd)
