"""Writes the sample PDFs of ``make demo``, and beside them the text that is on their pages.

    python scripts/demo/make_samples.py [FOLDER]

Texts and names are invented for this project. The fonts are those built into MuPDF. The same
versions of PyMuPDF and numpy write the same bytes every time.
"""

from __future__ import annotations

import html
import io
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pymupdf

SAMPLES = Path(__file__).parent / "samples"

A4 = pymupdf.paper_rect("a4")
MARGIN_PT = 64
COLUMN_GAP_PT = 24
SCAN_DPI = 130
SCAN_SKEW_DEGREES = (0.7, 0.0, -0.5)
JPEG_QUALITY = 35

CSS = """
body { font-family: serif; font-size: 11.5pt; line-height: 1.35; }
h1 { font-family: sans-serif; font-size: 19pt; margin: 0 0 10pt 0; }
h2 { font-family: sans-serif; font-size: 13.5pt; margin: 14pt 0 5pt 0; }
p { margin: 0 0 9pt 0; }
table { border-collapse: collapse; margin: 8pt 0 12pt 0; }
th, td { border: 0.7pt solid black; padding: 4pt 9pt 4pt 9pt; text-align: left; }
th { font-family: sans-serif; font-size: 10.5pt; }
.typed { font-family: monospace; font-size: 11pt; }
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One PDF: its pages as HTML, an empty string being a blank page."""

    name: str
    pages: tuple[str, ...]
    columns: int = 1
    scanned: bool = False

    def expected(self) -> str:
        """Return the text of its pages in reading order, pages divided by form feeds."""
        return "\f".join(plain_text(page) for page in self.pages)


LETTER = Sample(
    name="letter",
    pages=(
        """
        <p><b>Harbour Museum of Port Elsin</b><br/>3 Ropewalk Lane<br/>Port Elsin</p>
        <p>Mr. Aldous Fenwick<br/>Clock Tower House<br/>Upper Marrow</p>
        <p>14 March 2024</p>
        <h2>The brass sextant from your grandmother's attic</h2>
        <p>Dear Mr. Fenwick,</p>
        <p>Thank you for the parcel that reached us last Tuesday. The instrument arrived
        without a scratch, because you packed it better than most museums would have done.</p>
        <p>Our conservator has now cleaned the frame and the two small mirrors. Under the dirt
        she found the mark of a maker in Lower Quay and the number 1187. We keep the order
        books of that workshop for the years 1861 to 1894, and number 1187 is in them: it was
        sold on 2 June 1872 to the mate of a coal brig called the Patient Hannah.</p>
        <p>The brig is an old acquaintance of ours. Her log for the winter of 1873 has been in
        our reading room for thirty years, and it complains on every second page about the
        weather, the cook, and the price of rope. It also says that the mate "lost his temper
        and his hat, but not his sextant" in a gale off the Skerry lights.</p>
        <p>We believe that this is the very sextant. There is a dent on the left side of the
        frame, and the log gives the reason for it.</p>
        """,
        """
        <p>We would like to show the instrument in our summer exhibition, which opens on 8 June
        and closes on 29 September. The insurance would be ours, of course, and your name would
        stand on the label unless you prefer otherwise.</p>
        <p>May we ask you for three things?</p>
        <p>1. A signed copy of the loan form, which is enclosed.</p>
        <p>2. Any photograph of your great-grandfather, with or without the hat.</p>
        <p>3. A day in April on which our driver may call to return the wooden case.</p>
        <p>If you find more of his papers, please do not sort them. The order in which a family
        kept its papers often tells us more than the papers do.</p>
        <p>With kind regards,</p>
        <p>Ottilie Brandreth<br/>Keeper of Instruments</p>
        """,
    ),
)

COLUMNS = Sample(
    name="two-columns",
    columns=2,
    pages=(
        """
        <h1>The Lamp Keepers of Skerry Point</h1>
        <p>For ninety years the light at Skerry Point was kept by one family. The work was
        simple and it never stopped: trim the wick, fill the tank, wind the clockwork, wipe the
        glass, write the log, and begin again before the oil ran low.</p>
        <p>The first keeper, Jonas Ardle, came to the rock in 1848 with a wife, a goat and a
        barrel of nails. He had been promised a house. What he found was a tower with three
        round rooms, one above the other, and a door that faced the sea.</p>
        <h2>A house without corners</h2>
        <p>Nothing that the family owned would stand against a wall. Jonas sawed the back of
        the cupboard into a curve, and the bed was built where it stood, so that it could never
        leave the room again. Visitors remembered the bread, which was round as well.</p>
        <p>The children learned to read from the log. It was the only book in the tower that
        grew longer every day, and they were allowed to write the weather into it as soon as
        they could spell the word fog.</p>
        <h2>The night of the two lights</h2>
        <p>In November 1881 a storm broke the great lens. Miriam Ardle, who was nineteen and
        alone in the tower, carried every lamp and candle of the house to the gallery and kept
        them burning behind wet sheets until the morning.</p>
        <p>Three ships passed that night. One captain wrote in his report that Skerry Point
        was showing a new and very beautiful light, and asked that it be kept.</p>
        <p>It was not kept. The new lens came in February, in eleven crates, and the candles
        went back into the cupboard with the curved back. Miriam became keeper in the following
        year and stayed for forty more.</p>
        <p>The light has needed nobody since 1938. The log is still open on its desk, and the
        last word on the last page is, in a careful hand, fog.</p>
        """,
    ),
)

TABLE = Sample(
    name="table",
    pages=(
        """
        <h1>Tide gauge at Lower Quay</h1>
        <p>The gauge was read four times a day through the first week of May. Heights are in
        centimetres above the old stone step; a minus sign means that the step was dry.</p>
        <table>
        <tr><th>Day</th><th>06:00</th><th>12:00</th><th>18:00</th><th>24:00</th><th>Wind</th></tr>
        <tr><td>Monday</td><td>112</td><td>-14</td><td>118</td><td>-9</td><td>west</td></tr>
        <tr><td>Tuesday</td><td>104</td><td>-6</td><td>111</td><td>-2</td><td>west</td></tr>
        <tr><td>Wednesday</td><td>95</td><td>3</td><td>101</td><td>8</td><td>north</td></tr>
        <tr><td>Thursday</td><td>83</td><td>15</td><td>90</td><td>19</td><td>north</td></tr>
        <tr><td>Friday</td><td>74</td><td>26</td><td>79</td><td>31</td><td>calm</td></tr>
        <tr><td>Saturday</td><td>68</td><td>37</td><td>70</td><td>40</td><td>south</td></tr>
        <tr><td>Sunday</td><td>71</td><td>33</td><td>77</td><td>28</td><td>south</td></tr>
        </table>
        <p>The range falls from 132 centimetres on Monday to 30 on Saturday, as it should
        between spring and neap tide. The reading of Friday noon was taken by the harbour
        master's daughter, who signed for it.</p>
        """,
    ),
)

SCAN = Sample(
    name="scan",
    scanned=True,
    pages=(
        """
        <div class="typed">
        <h2>MINUTES OF THE ALLOTMENT SOCIETY</h2>
        <p>Held in the tea room of Upper Marrow on the first Friday of October. Present were
        eleven members, two guests and the dog of the treasurer.</p>
        <p>1. The chair opened the meeting at seven and asked for order. Order was given after
        the second kettle.</p>
        <p>2. The treasurer reported a balance of 84 pounds and 20 pence. The fence along the
        railway has cost 31 pounds more than expected, because it is now on the right side of
        the railway.</p>
        <p>3. Mrs. Quillfeather moved that the water be turned off on 15 November. Carried
        with nine votes against two.</p>
        </div>
        """,
        "",
        """
        <div class="typed">
        <p>4. The prize for the heaviest pumpkin goes to plot 17. The scales of the post
        office stop at 30 kilograms, so that the true weight remains unknown.</p>
        <p>5. Nobody wished to become secretary. The present secretary was thanked for
        staying.</p>
        <p>6. The next meeting is on the first Friday of February. Members are asked to bring
        their own chairs.</p>
        <p>The chair closed the meeting at twenty minutes to nine.</p>
        </div>
        """,
    ),
)

GERMAN = Sample(
    name="german",
    pages=(
        """
        <h1>Die Brücke über die Öhle</h1>
        <p>Als der Müller von Großwinkel im Frühjahr 1836 zum dritten Mal seinen Karren aus
        dem Fluss ziehen musste, schrieb er an die Behörde. Er bat um eine Brücke, breit genug
        für zwei Ochsen und hoch genug für das Märzwasser.</p>
        <p>Die Antwort kam nach fünf Jahren. Man könne, hieß es darin, den Bedarf nicht
        erkennen, da auf der Straße über die Öhle kaum Verkehr gezählt worden sei. Gezählt
        hatte man am Ufer, an der Stelle, an der die Brücke fehlte.</p>
        <h2>Der Bau</h2>
        <p>Darauf bauten die Leute selbst. Jeder Hof gab zwei Stämme und einen Mann, die
        Schmiede gab die Nägel, und die Witwe Böhm kochte täglich für vierzig Esser. Übrig
        blieb am Ende ein einziger Balken, über dessen Zweck bis heute gestritten wird.</p>
        <p>Im September 1842 fuhr der Müller als Erster hinüber. Er hielt in der Mitte an,
        lüftete den Hut und äußerte den Satz, der noch über dem Geländer steht: »Es geht auch
        trocken.«</p>
        """,
    ),
)

GREEK = Sample(
    name="greek",
    pages=(
        """
        <h1>Η βιβλιοθήκη του νησιού</h1>
        <p>Στο μικρό λιμάνι υπήρχε κάποτε μια βιβλιοθήκη με τριακόσια βιβλία και έναν μόνο
        αναγνώστη. Ο αναγνώστης ήταν ο φύλακας του φάρου. Κάθε Σάββατο κατέβαινε με τον γάιδαρό
        του, έπαιρνε ένα βιβλίο και άφηνε στη θέση του ένα καλάθι σύκα.</p>
        <p>Ο δάσκαλος κρατούσε έναν κατάλογο. Στη μία στήλη έγραφε τον τίτλο του βιβλίου και
        στην άλλη πόσα σύκα είχε το καλάθι. Ύστερα από είκοσι χρόνια ο κατάλογος ήταν το πιο
        χοντρό βιβλίο της βιβλιοθήκης.</p>
        <h2>Το τελευταίο βιβλίο</h2>
        <p>Όταν ο φύλακας τελείωσε και το τελευταίο ράφι, ζήτησε να διαβάσει τον κατάλογο. Τον
        επέστρεψε τον χειμώνα, χωρίς σύκα αυτή τη φορά, με μια σημείωση στην τελευταία σελίδα:
        όλα σωστά, μόνο που το καλάθι του Μαΐου ήταν μισό.</p>
        """,
    ),
)

ALL_SAMPLES = (LETTER, COLUMNS, TABLE, SCAN, GERMAN, GREEK)


def plain_text(page_html: str) -> str:
    """Return the text of a page, one line for each block of the HTML."""
    text = re.sub(r"\s+", " ", page_html)
    text = re.sub(r"<br/>|</?(?:p|div|h1|h2|table|tr|th|td)\b[^>]*>", "\n", text)
    text = html.unescape(re.sub(r"<[^>]*>", "", text))
    return "\n".join(line.strip() for line in text.splitlines() if line.strip())


def typeset(sample: Sample) -> pymupdf.Document:
    """Return the sample as a PDF with a text layer."""
    stream = io.BytesIO()
    writer = pymupdf.DocumentWriter(stream)
    for page_html in sample.pages:
        device = writer.begin_page(A4)
        if page_html:
            columns = even_columns(page_html, sample.columns)
            flow(pymupdf.Story(page_html, user_css=CSS), columns, device)
        writer.end_page()
    writer.close()
    document = pymupdf.open(stream=stream, filetype="pdf")
    document.subset_fonts()
    return document


def even_columns(page_html: str, count: int) -> list[pymupdf.Rect]:
    """Return the rectangles, in points, of the lowest columns that hold the whole text.

    Raises:
        ValueError: it does not fit on a page.
    """
    width = (A4.width - 2 * MARGIN_PT - (count - 1) * COLUMN_GAP_PT) / count
    lefts = [MARGIN_PT + i * (width + COLUMN_GAP_PT) for i in range(count)]
    for bottom in range(MARGIN_PT + 20, round(A4.height) - MARGIN_PT, 4):
        columns = [pymupdf.Rect(left, MARGIN_PT, left + width, bottom) for left in lefts]
        if flow(pymupdf.Story(page_html, user_css=CSS), columns, None):
            return columns
    raise ValueError(f"the text does not fit on a page: {page_html.strip()[:60]} …")


def flow(
    story: pymupdf.Story, columns: Iterable[pymupdf.Rect], device: pymupdf.DeviceWrapper | None
) -> bool:
    """Fill one column after the other and return whether all of the story found room."""
    more = True
    for column in columns:
        if more:
            more, _ = story.place(column)
            story.draw(device)
    return not more


def scan(document: pymupdf.Document) -> pymupdf.Document:
    """Return the document as a scanner would have made it: grey JPEG pages, a little askew."""
    scanned = pymupdf.open()
    for page_index, skew_degrees in enumerate(SCAN_SKEW_DEGREES):
        picture = page_as_scan(document[page_index], skew_degrees)
        jpeg = picture.tobytes("jpeg", jpg_quality=JPEG_QUALITY)
        scanned.new_page(width=A4.width, height=A4.height).insert_image(A4, stream=jpeg)
    return scanned


def page_as_scan(page: pymupdf.Page, skew_degrees: float) -> pymupdf.Pixmap:
    """Return the page as a grey picture: turned, noisy, on greyish paper, one edge in shadow."""
    zoom = SCAN_DPI / 72
    turned = page.get_pixmap(
        matrix=pymupdf.Matrix(zoom, zoom).prerotate(skew_degrees), colorspace=pymupdf.csGRAY
    )
    ink = np.frombuffer(turned.samples, np.uint8).reshape(turned.height, turned.width)
    ink = ink[: round(A4.height * zoom), : round(A4.width * zoom)]
    height, width = ink.shape
    noise = np.random.default_rng(page.number).normal(0, 3, ink.shape)
    shadow = 60 * np.exp(-np.arange(width) / 4)
    grey = np.clip(ink * 0.86 + 22 + noise - shadow, 0, 255).astype(np.uint8)
    return pymupdf.Pixmap(pymupdf.csGRAY, width, height, grey.tobytes(), False)  # noqa: FBT003 (its alpha flag)


def write_samples(folder: Path) -> None:
    """Write every sample to ``folder``, and its text to ``folder/expected``."""
    (folder / "expected").mkdir(parents=True, exist_ok=True)
    for sample in ALL_SAMPLES:
        document = typeset(sample)
        if sample.scanned:
            document = scan(document)
        document.save(
            folder / f"{sample.name}.pdf",
            garbage=4,
            deflate=True,
            no_new_id=True,
            reproducible=True,
        )
        (folder / "expected" / f"{sample.name}.txt").write_text(sample.expected(), encoding="utf-8")


if __name__ == "__main__":
    write_samples(Path(sys.argv[1]) if len(sys.argv) > 1 else SAMPLES)
