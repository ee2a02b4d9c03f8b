"""How long the documents of a corpus are: published page counts as log-normal distributions."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """A log-normal distribution of pages a document, at least 1 and at most ``max_pages``."""

    mean_pages: float
    """Before rounding and cutting."""
    spread: float
    """Standard deviation of the logarithm."""
    max_pages: int = 10_000
    """No limit would give one document in a million more than 100,000 pages."""


class Profile(StrEnum):
    """Corpora whose lengths are known."""

    WEB = "web"
    """PDFs of a web crawl."""
    PAPERS = "papers"
    BOOKS = "books"
    MIXED = "mixed"
    """One person's disk: letters beside manuals."""

    @property
    def lengths(self) -> Lengths:
        """Return its distribution; sources and fits: NOTES.md, "Fleets"."""
        return _LENGTHS[self]


_LENGTHS = {
    # Mean: pixparse/pdfa-eng-wds, 18.6 M pages in 2.16 M PDFs. Spread: 95 test PDFs.
    Profile.WEB: Lengths(mean_pages=8.6, spread=1.4),
    # Mean: Transactions of the AMS, 87,778 pages in 3,034 articles. Spread: assumed.
    Profile.PAPERS: Lengths(mean_pages=28.9, spread=0.6),
    # Mean: Institutional Books 1.0, 386 M pages in 983,004 volumes. Spread: assumed.
    Profile.BOOKS: Lengths(mean_pages=393, spread=0.5),
    # Both: 280,777 pages in 4,949 PDFs, 18 % of them of one page, 53 % below ten.
    Profile.MIXED: Lengths(mean_pages=57, spread=2.0),
}
