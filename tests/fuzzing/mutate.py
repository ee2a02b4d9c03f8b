"""Bytes that are almost right: files of the corpus, cut, spliced, repeated and sprinkled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hypothesis import strategies as st

CORPUS = Path(__file__).resolve().parents[1] / "fuzz_corpus"
MAX_BYTES = 20_000

TOKENS: dict[str, Sequence[bytes]] = {
    "grounding": [
        *(b"<|ref|>", b"<|/ref|>", b"<|det|>", b"<|/det|>", "<｜ref｜>".encode(), b"[[", b"]]"),
        *(b"text", b"table", b"[[1, 2, 3, 4]]", b"<table>", b"<td>", b"</table>", b"\\[", b"\\("),
        *(b"\n", b"<|", b"|>", b"999999999", b"-1", b"\x00", b"\x1b[2J", b"----- Page 2 -----"),
        *(b"<|grounding|>", b"<image>", b"[[Blank page]]", b"&lt;", b"$$"),
    ],
    "record": [
        *(b"null", b"-1", b"999999999999", b"1e400", b'"', b"\\ud800", b"[]", b"{}", b"true"),
        *(b'"page_count":', b'"pages":[', b'"path":"../../x"', b"\\u0000", b"\xff", b"0.5"),
    ],
    "journal": [b"\x1f\x8b\x08", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff", b"\x00", b"\n"],
    "config": [
        *(b"dpi", b"=", b"[", b"]", b"{", b"}", b'"', b"\n", b"1979-05-27", b"nan", b"inf"),
        *(
            b"-1",
            b"true",
            b'"\\u0000"',
            b"num-shards",
            b"num_shards",
            b"config",
            b"pdf",
            b"9" * 5000,
        ),
        *(b"model", b"prompt", b"mode", b'"x"', b"[[", b"."),
    ],
}


def seeds(target: str) -> list[bytes]:
    """Return the stored files of a target."""
    return [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]


@st.composite
def mutated(draw: st.DrawFn, target: str, corpus: Sequence[bytes]) -> bytes:
    """Return a file of the corpus after a few edits."""
    data = bytearray(draw(st.sampled_from(corpus)))
    for _ in range(draw(st.integers(0, 8))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.sampled_from([1, 2, 8, 40, 400])))
        match draw(st.sampled_from(["token", "flip", "delete", "repeat", "splice", "noise"])):
            case "token":
                data[start:start] = draw(st.sampled_from(TOKENS[target]))
            case "flip" if start < end:
                data[start] ^= 1 << draw(st.integers(0, 7))
            case "delete":
                del data[start:end]
            case "repeat":
                times = draw(st.sampled_from([2, 3, 30, 3000]))
                data[start:start] = bytes(data[start:end]) * times
            case "splice":
                other = draw(st.sampled_from(corpus))
                data[start:end] = other[draw(st.integers(0, len(other))) :]
            case _:
                data[start:end] = draw(st.binary(max_size=20))
        del data[MAX_BYTES:]
    return bytes(data)
