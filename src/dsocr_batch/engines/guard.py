"""The guard that watches a page being written and says when the model has begun to loop."""

from __future__ import annotations

from dataclasses import replace

from dsocr_batch.postprocess.repetition import LOOK_EVERY, WINDOW, Loop, loop_at_end


class LoopGuard:
    """Watches one page. Feed it every piece of text as it comes; it looks only now and then.

    It looks at the same places however the text was cut, and so comes to the verdict of
    ``repetition.find_loop``. Between two looks a piece costs an append; a look costs the same
    at the end of a long page as at its beginning.
    """

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._tail = ""
        """The last ``WINDOW`` characters of what has been looked at."""
        self._looked_at = 0
        """How many characters have been looked at."""
        self._unseen: list[str] = []
        self._unseen_chars = 0
        self._loop: Loop | None = None

    def feed(self, delta: str) -> Loop | None:
        """Add text; return the loop once the page is lost, else None.

        The page's good part is then ``guard.text[:loop.start]``, and the request can be aborted.
        """
        self._parts.append(delta)
        self._unseen.append(delta)
        self._unseen_chars += len(delta)
        if self._unseen_chars >= LOOK_EVERY and self._loop is None:
            unseen = self._take_unseen()
            whole = len(unseen) - len(unseen) % LOOK_EVERY
            looks = (self._look(unseen[at : at + LOOK_EVERY]) for at in range(0, whole, LOOK_EVERY))
            self._loop = next(filter(None, looks), None)
            self._unseen, self._unseen_chars = [unseen[whole:]], len(unseen) - whole
        return self._loop

    def finish(self) -> Loop | None:
        """Look once more at the end of a page: for one that ran into the token limit."""
        if self._loop is None and self._unseen_chars:
            self._loop = self._look(self._take_unseen())
        return self._loop

    @property
    def text(self) -> str:
        """Everything that was fed."""
        return "".join(self._parts)

    def _take_unseen(self) -> str:
        unseen = "".join(self._unseen)
        self._unseen, self._unseen_chars = [], 0
        return unseen

    def _look(self, unseen: str) -> Loop | None:
        self._tail = (self._tail + unseen)[-WINDOW:]
        self._looked_at += len(unseen)
        loop = loop_at_end(self._tail)
        before = self._looked_at - len(self._tail)
        return None if loop is None else replace(loop, start=before + loop.start)
