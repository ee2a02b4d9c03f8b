"""PDFs that are broken or mean harm, one of each kind, written by code."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import pymupdf

from documents import write_hanging_pdf, write_pdf

AES_256 = 5  # pymupdf.PDF_ENCRYPT_AES_256


def truncated(path: Path) -> None:
    """Cut in the middle: without its cross-reference table, and without its last pages."""
    write_pdf(path, [f"page {number}" for number in range(1, 9)])
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def cyclic_page_tree(path: Path) -> None:
    """The page tree is its own child."""
    write_objects(
        path,
        [
            CATALOG,
            b"<</Type /Pages /Count 3 /Kids [3 0 R 2 0 R 2 0 R]>>",
            PAGE,
            stream(b"<<", TEXT),
        ],
    )


def lying_page_count(path: Path) -> None:
    """One page, promised a thousandfold."""
    write_objects(
        path, [CATALOG, b"<</Type /Pages /Count 1000 /Kids [3 0 R]>>", PAGE, stream(b"<<", TEXT)]
    )


def absurd_page_count(path: Path) -> None:
    """As many pages as a 32-bit number can promise; one is there."""
    write_objects(
        path,
        [CATALOG, b"<</Type /Pages /Count 2147483647 /Kids [3 0 R]>>", PAGE, stream(b"<<", TEXT)],
    )


def zero_pages(path: Path) -> None:
    write_objects(path, [CATALOG, b"<</Type /Pages /Count 0 /Kids []>>"])


def giant_page(path: Path) -> None:
    """A page of 200 inches (14,400 pt): the largest that PDF 1.6 allows without UserUnit."""
    with pymupdf.open() as document:
        page = document.new_page(width=14_400, height=14_400)
        page.insert_text((1000, 4000), "GIANT", fontsize=3000)
        document.save(path)


def giant_bitmap(path: Path) -> None:
    """30,000 x 30,000 pixels of one bit each; 112 MB in about 110 kB."""
    side = 30_000
    packed = zlib.compressobj(9)
    black, white = bytes(side // 8), b"\xff" * (side // 8)
    rows = (black if row // 3_000 % 2 else white for row in range(side))
    data = b"".join(map(packed.compress, rows)) + packed.flush()
    image = b"<</Type /XObject /Subtype /Image /Width %d /Height %d /ColorSpace /DeviceGray " % (
        side,
        side,
    )
    write_objects(
        path,
        [
            CATALOG,
            b"<</Type /Pages /Count 1 /Kids [3 0 R]>>",
            PAGE_OF_IMAGE,
            stream(b"<<", b"612 0 0 792 0 0 cm /I Do"),
            stream(image + b"/BitsPerComponent 1 /Filter /FlateDecode ", data),
        ],
    )


def encrypted(path: Path, user_password: str) -> None:
    with pymupdf.open() as document:
        for number in (1, 2):
            document.new_page(width=300, height=400).insert_text((30, 60), f"secret {number}")
        document.save(path, encryption=AES_256, user_pw=user_password, owner_pw="the owner's")


def text_named_pdf(path: Path) -> None:
    path.write_text("Dear reader, this is no PDF.\n" * 99, encoding="utf-8")


def half_broken(path: Path) -> None:
    """Four pages; the second has a content stream of noise, the third is not there."""
    write_pdf(path, ["first", "second", "third", "fourth"])
    with pymupdf.open(path) as document:
        (contents,) = document[1].get_contents()
        document.xref_set_key(contents, "Filter", "/FlateDecode")
        document.update_stream(contents, bytes(range(256)) * 8, compress=False)
        document.update_object(document.page_xref(2), "null")
        data = document.tobytes()
    path.write_bytes(data)


def deep_nesting(path: Path) -> None:
    """Arrays in arrays, 100,000 deep: a parser that recurses runs out of stack."""
    deep = b"[" * 100_000 + b"]" * 100_000
    pages = b"<</Type /Pages /Count 1 /Kids [3 0 R] /Deep " + deep + b">>"
    write_objects(path, [CATALOG, pages, PAGE, stream(b"<<", TEXT)])


def stream_bomb(path: Path) -> None:
    """A content stream of 3 GiB of spaces, packed twice into a few kilobytes."""
    packed = zlib.compressobj(1)
    block = packed.compress(b" " * (64 << 20)) + packed.flush(zlib.Z_FULL_FLUSH)
    # After a full flush a block stands for itself: it can be repeated instead of packed again.
    twice = zlib.compress(block + block[2:] * 47, 9)
    write_objects(
        path,
        [
            CATALOG,
            b"<</Type /Pages /Count 1 /Kids [3 0 R]>>",
            b"<</Type /Page /Parent 2 0 R /MediaBox [0 0 300 400] /Contents 4 0 R>>",
            stream(b"<</Filter [/FlateDecode /FlateDecode] ", twice),
        ],
    )


def hanging(path: Path) -> None:
    """The first of two pages draws a form within a form, 10 to the 12th times."""
    write_hanging_pdf(path, 2, hanging=[0])


CATALOG = b"<</Type /Catalog /Pages 2 0 R>>"
PAGE = (
    b"<</Type /Page /Parent 2 0 R /MediaBox [0 0 300 400] /Contents 4 0 R /Resources <</Font <</F "
    b"<</Type /Font /Subtype /Type1 /BaseFont /Helvetica>>>>>>>>"
)
PAGE_OF_IMAGE = (
    b"<</Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R "
    b"/Resources <</XObject <</I 5 0 R>>>>>>"
)
TEXT = b"BT /F 24 Tf 30 300 Td (Here I am) Tj ET"


def stream(dictionary: bytes, data: bytes) -> bytes:
    """Return a stream object; ``dictionary`` lacks its length and its end."""
    return b"%s /Length %d>>\nstream\n%s\nendstream" % (dictionary, len(data), data)


def write_objects(path: Path, objects: list[bytes]) -> None:
    """Write a PDF of these objects, numbered from 1; the first is the catalog."""
    body = bytearray(b"%PDF-1.7\n")
    offsets = []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    start = len(body)
    body += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    for offset in offsets:
        body += b"%010d 00000 n \n" % offset
    body += b"trailer\n<</Size %d /Root 1 0 R>>\n" % (len(objects) + 1)
    body += b"startxref\n%d\n%%%%EOF\n" % start
    path.write_bytes(body)


KINDS: dict[str, Callable[[Path], None]] = {
    "truncated": truncated,
    "cyclic": cyclic_page_tree,
    "lying": lying_page_count,
    "absurd": absurd_page_count,
    "zero": zero_pages,
    "giant-page": giant_page,
    "giant-bitmap": giant_bitmap,
    "locked": lambda path: encrypted(path, "open sesame"),
    "unlocked": lambda path: encrypted(path, ""),
    "text": text_named_pdf,
    "half-broken": half_broken,
    "nested": deep_nesting,
    "bomb": stream_bomb,
    "hanging": hanging,
}
