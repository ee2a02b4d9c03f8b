"""How a render worker holds its memory: kept from page to page, given back now and then.

A page goes through blocks of some megabytes. glibc asks the system for each and returns it, so a
third of a page's time went into pages of memory that came and were cleared. If it keeps them, what
lives longer lies between them, and the process grows with each decoded scan. So it keeps them, and
what is free is given back every few pages (NOTES.md, "Renderer"). Other C libraries do as they
think best.
"""

from __future__ import annotations

import ctypes

LARGEST_KEPT_BYTES = 32 << 20
"""Of one block; the most that glibc takes. An A4 page at 300 dpi has 26 MB."""
KEPT_BYTES = 64 << 20
"""Of free memory at the end of the heap."""
GIVE_BACK_EVERY = 10
"""Requests. A scan of A4 leaves some 10 kB that cannot be used again."""

_M_TRIM_THRESHOLD = -1  # malloc.h
_M_MMAP_THRESHOLD = -3


def keep_blocks() -> None:
    """Keep freed memory for the next page."""
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(_M_MMAP_THRESHOLD, LARGEST_KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)


def give_back() -> None:
    """Give free memory back to the system; addresses in mid-heap stay taken."""
    if malloc_trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        malloc_trim(0)
