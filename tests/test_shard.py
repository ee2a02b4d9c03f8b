from __future__ import annotations

import os

from hypothesis import given, settings
from hypothesis import strategies as st

from dsocr_batch.shard import shard_of

# Made without Python, so that this test cannot inherit a mistake of the code:
#   printf 'a.pdf' | sha256sum    then    Math::BigInt->from_hex(…) % 2, 7, 64, 1000   (perl)
FROZEN = {
    b"a.pdf": (0, 5, 52, 500),
    b"sub/paper.pdf": (1, 4, 43, 747),
    "b/Übung 1.PDF".encode(): (1, 1, 41, 345),
    b"caf\xe9.pdf": (1, 5, 23, 871),
}
SHARD_COUNTS = (2, 7, 64, 1000)

names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)


def test_the_rule_is_frozen() -> None:
    for name, expected in FROZEN.items():
        found = tuple(shard_of(os.fsdecode(name), count) for count in SHARD_COUNTS)
        assert found == expected, name


def test_one_shard_takes_all() -> None:
    assert {shard_of(os.fsdecode(name), 1) for name in FROZEN} == {0}


@settings(max_examples=50)
@given(st.sets(names, max_size=40), st.integers(1, 12))
def test_shards_are_disjoint_and_complete(corpus: set[str], num_shards: int) -> None:
    shards = [
        {name for name in corpus if shard_of(name, num_shards) == index}
        for index in range(num_shards)
    ]
    assert set().union(*shards) == corpus
    assert sum(len(shard) for shard in shards) == len(corpus)


@settings(max_examples=50)
@given(st.binary(max_size=60).filter(lambda name: b"\0" not in name), st.integers(1, 12))
def test_any_name_on_disk_has_a_shard(name: bytes, num_shards: int) -> None:
    assert 0 <= shard_of(os.fsdecode(name), num_shards) < num_shards


def test_many_names_spread_evenly() -> None:
    counts = [0] * 8
    for number in range(8000):
        counts[shard_of(f"2024/scan_{number:06}.pdf", 8)] += 1
    assert min(counts) > 900
    assert max(counts) < 1100
