"""Each quirk of real model output as a file: ``golden/<quirk>.raw.txt`` and what we make of it.

``make golden`` writes the results anew; the diff is what there is to review.
"""

from pathlib import Path

import pytest

from dsocr_batch.postprocess.page import process_page
from dsocr_batch.records import Mode

GOLDEN = Path(__file__).parent / "golden"
QUIRKS = sorted(path.name.removesuffix(".raw.txt") for path in GOLDEN.glob("*.raw.txt"))


def results(quirk: str) -> dict[Path, str]:
    """Return the files of a quirk with the text that belongs there."""
    raw = (GOLDEN / f"{quirk}.raw.txt").read_text(encoding="utf-8")
    page = process_page(raw, Mode.GROUNDED)
    texts = {GOLDEN / f"{quirk}.md": page.markdown + "\n"}
    if page.regions:
        texts[GOLDEN / f"{quirk}.grounded.md"] = f"{page.grounded}\n"
    return texts


@pytest.mark.parametrize("quirk", QUIRKS)
def test_the_quirk_is_cleaned_as_reviewed(quirk: str) -> None:
    for path, text in results(quirk).items():
        assert path.read_text(encoding="utf-8") == text, path.name


def test_no_golden_file_is_left_over() -> None:
    wanted = {path for quirk in QUIRKS for path in results(quirk)}
    assert set(GOLDEN.glob("*.md")) == wanted


if __name__ == "__main__":
    for old in GOLDEN.glob("*.md"):
        old.unlink()
    for quirk in QUIRKS:
        for path, text in results(quirk).items():
            path.write_text(text, encoding="utf-8")
