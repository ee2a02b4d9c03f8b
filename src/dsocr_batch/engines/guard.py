"""The guard that watches a page being written and says when the model has begun to loop."""

from __future__ import annotations

from dsocr_batch.postprocess.repetition import Loop, find_loop


class LoopGuard:
    """Watches one page. Feed it every piece of text as it comes; it looks only now and then."""

    def __init__(self) -> None:
        self._parts: list[str] = []

    def feed(self, delta: str) -> Loop | None:
        """Add text; return the loop once the page is lost, else None.

        The page's good part is then ``guard.text[:loop.start]``.
        """
        self._parts.append(delta)
        return None

    def finish(self) -> Loop | None:
        """Look once more at the end of a page, for one that ran into the token limit."""
        return find_loop(self.text)

    @property
    def text(self) -> str:
        """Everything that was fed."""
        return "".join(self._parts)
