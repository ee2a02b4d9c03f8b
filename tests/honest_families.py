"""Made-up pages that repeat themselves as printed pages do, in families; none is a loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import cos, sin
from random import Random

from loop_families import PAGE_CHARS, name, prose, sentence, table, word


def price(random: Random) -> str:
    return f"{random.randint(0, 99)}.{random.randint(0, 99):02}"


def label(random: Random, kind: str = "text") -> str:
    x, y = random.randint(50, 500), random.randint(50, 900)
    box = [x, y, x + random.randint(50, 450), y + random.randint(10, 90)]
    return f"<|ref|>{kind}<|/ref|><|det|>[{box}]<|/det|>\n"


def receipt(random: Random) -> str:
    rule = random.choice("*=-_") * random.randint(20, 48)
    lines = [name(random), rule]
    for _ in range(random.randint(5, 40)):
        lines.append(f"{word(random)} {random.randint(1, 9)} x {price(random)}")
        if random.random() < 0.15:
            lines.append(rule)
    return "\n\n".join([*lines, rule, f"Total {random.randint(1, 999)}.00", rule, rule])


def contents_with_leaders(random: Random) -> str:
    leader = random.choice([".", ". ", " .", "…", "·", "．", "_", "- "])
    between = random.choice(["\n", "\n\n", " "])
    page, entries = 1, []
    for number in range(random.randint(10, 60)):
        page += random.randint(0, 7)
        dots = leader * random.randint(20, 110 // len(leader))
        title = sentence(random, random.randint(1, 6))
        entries.append(f"{number + 1}.{random.randint(1, 9)} {title} {dots} {page}")
    return between.join(entries)


def empty_table(random: Random) -> str:
    columns, rows = random.randint(2, 14), random.randint(5, 60)
    heads = [word(random) for _ in range(columns)]
    return (
        prose(random, 200)
        + table([heads, *[[""] * columns for _ in range(rows)]])
        + prose(random, 100)
    )


def duty_roster(random: Random) -> str:
    names = [name(random) for _ in range(random.randint(5, 25))]
    head = ["Name", *map(str, range(1, 32))]
    return table(
        [
            head,
            *[
                [name, *[random.choice(["", "", "", "F", "S"]) for _ in range(31)]]
                for name in names
            ],
        ]
    )


def numbered_empty_rows(random: Random) -> str:
    columns = random.randint(1, 8)
    return table(
        [
            ["Nr.", *["Name"] * columns],
            *[[str(n), *[""] * columns] for n in range(1, random.randint(20, 60))],
        ]
    )


def form_lines(random: Random) -> str:
    rule = "_" * random.randint(10, 100)
    fields = [f"{name(random)}: {rule}" for _ in range(random.randint(3, 20))]
    return "\n".join(fields) + "\n" + "\n".join([rule] * random.randint(3, 30))


def attendance(random: Random) -> str:
    line = "Name ________________ Signature ________________ Date ____________"
    return prose(random, 100) + "\n".join([line] * random.randint(10, 35))


def calendar(random: Random) -> str:
    months = "January February March April May June July August September October November December"
    text = []
    for month in months.split():
        start, days = random.randint(0, 6), random.choice([28, 30, 31])
        cells = [""] * start + [str(day) for day in range(1, days + 1)]
        cells += [""] * (-len(cells) % 7)
        weeks = [cells[at : at + 7] for at in range(0, len(cells), 7)]
        text.append(f"{month}\n\n" + table([["Mo", "Tu", "We", "Th", "Fr", "Sa", "Su"], *weeks]))
    return "\n\n".join(text)


def calendar_in_lines(random: Random) -> str:
    return "\n".join(
        f"{name(random)} " + " ".join(str(day) for day in range(1, random.choice([29, 31, 32])))
        for _ in range(12)
    )


def years(random: Random) -> str:
    first = random.randint(1800, 1980)
    return table(
        [[str(first + n), f"{random.randint(0, 99999):,}"] for n in range(random.randint(20, 80))]
    )


def years_alone(random: Random) -> str:
    first = random.randint(1800, 1980)
    between = random.choice(["\n", ", ", " ", "\n\n"])
    return between.join(str(first + n) for n in range(random.randint(10, 75)))


def number_table(random: Random) -> str:
    digits, columns = random.randint(1, 5), random.randint(3, 14)
    return table(
        [
            [str(random.randrange(10**digits)) for _ in range(columns)]
            for _ in range(random.randint(8, 50))
        ]
    )


def decimal_table(random: Random) -> str:
    columns = random.randint(3, 10)
    rows = [
        [word(random), *[f"{random.random() * 10:.2f}" for _ in range(columns)]]
        for _ in range(random.randint(8, 50))
    ]
    return table(rows)


def zero_one_matrix(random: Random) -> str:
    side, share = random.randint(4, 25), random.random()
    rows = [[str(int(random.random() < share)) for _ in range(side)] for _ in range(side)]
    if random.random() < 0.5:
        return table(rows)
    return (
        "\\[\n\\begin{bmatrix}\n"
        + " \\\\\n".join(" & ".join(r) for r in rows)
        + "\n\\end{bmatrix}\n\\]"
    )


def sparse_statistics(random: Random) -> str:
    columns, gap = random.randint(4, 20), random.choice(["-", "0", "–", "", "0.0"])
    rows = [
        [
            sentence(random, random.randint(1, 3)),
            *[
                str(random.randint(1, 999)) if random.random() < 0.1 else gap
                for _ in range(columns)
            ],
        ]
        for _ in range(random.randint(10, 60))
    ]
    return table(rows)


def equal_rows(random: Random) -> str:
    cells = [random.choice(["Yes", "No", "0", "n/a", "X", ""]) for _ in range(random.randint(2, 8))]
    return (
        prose(random, 300)
        + table([["A", "B"], *[cells] * random.randint(5, 50)])
        + prose(random, 300)
    )


def ticks(random: Random) -> str:
    rows = [
        [
            f"{chr(97 + n % 26)}) {sentence(random)}",
            *random.sample(["○", "●", "○", "○"], random.randint(2, 4)),
        ]
        for n in range(random.randint(5, 30))
    ]
    return table(rows)


def scores(random: Random) -> str:
    return table(
        [
            [str(n), *[str(random.randint(1, 5)) for _ in range(10)]]
            for n in range(1, random.randint(20, 45))
        ]
    )


def multiplication_table(random: Random) -> str:
    side = random.randint(5, 20)
    return table([[str(a * b) for b in range(1, side + 1)] for a in range(1, side + 1)])


def seats(random: Random) -> str:
    across, down = random.randint(5, 20), random.randint(5, 25)
    rows = [[str(r * across + c + 1) for c in range(across)] for r in range(down)]
    return table(rows) if random.random() < 0.5 else "\n".join(" ".join(r) for r in rows)


def line_numbers(random: Random) -> str:
    text = prose(random, 2000)
    return text + "\n".join(map(str, range(1, random.randint(25, 60)))) + "\n" + prose(random, 500)


def bibliography(random: Random) -> str:
    return "\n\n".join(
        f"[{n}] {name(random)}, {random.choice('ABCDEFG')}. {sentence(random)} In Proceedings of "
        f"the IEEE Conference on {name(random)}, pages {random.randint(1, 500)}- "
        f"{random.randint(500, 999)}, {random.randint(1990, 2025)}. "
        f"doi: 10.{random.randint(1000, 9999)}/{random.randint(1, 10**7)}."
        for n in range(1, random.randint(15, 50))
    )


def lines_with_boxes(random: Random) -> str:
    x, height, y = random.randint(50, 500), random.randint(10, 20), random.randint(20, 60)
    lines = []
    while y < 980:
        box = [x, y, x + 380, y + height]
        lines.append(f"<|ref|>{sentence(random, 5)}<|/ref|><|det|>[{box}]<|/det|>")
        y += height
    return "\n".join(lines)


def many_boxes(random: Random) -> str:
    boxes = []
    for _ in range(random.randint(10, 60)):
        x, y = random.randint(0, 900), random.randint(0, 900)
        boxes.append([x, y, x + random.randint(20, 90), y + random.randint(8, 30)])
    return f"<|ref|>the<|/ref|><|det|>{boxes}<|/det|>"


def figures_in_a_grid(random: Random) -> str:
    across, down = random.randint(2, 6), random.randint(2, 8)
    corners = [(40 + 150 * c, 30 + 110 * r) for r in range(down) for c in range(across)]
    boxes = [[x, y, x + 130, y + 90] for x, y in corners]
    return "".join(f"<|ref|>image<|/ref|><|det|>[{box}]<|/det|>\n \n\n" for box in boxes)


def song(random: Random) -> str:
    refrain = "\n".join(sentence(random, 5) for _ in range(4))
    again = sentence(random, 3)
    return "\n\n".join(
        "\n".join(sentence(random, 6) for _ in range(4))
        + f"\n\n{refrain}\n{again}\n{again}\n{again}"
        for _ in range(random.randint(3, 7))
    )


def chords(random: Random) -> str:
    bars = random.sample(["C", "G", "Am", "F", "Dm", "E7"], 4)
    return "\n".join(
        " | ".join(bars) + "\n" + sentence(random, 6) for _ in range(random.randint(10, 30))
    )


def derivation(random: Random) -> str:
    letters = random.sample("uvwxy", 3)

    def factor() -> str:
        return rf"\mathbf{{{random.choice(letters)}}}_{random.randint(1, 3)}"

    def terms() -> str:
        count = random.randint(2, 14)
        return " + ".join(rf"{factor()} \cdot {factor()}" for _ in range(count))

    return "\n\n".join(f"\\[ = {terms()} \\]" for _ in range(random.randint(5, 20)))


def markdown_table(random: Random) -> str:
    columns = random.randint(3, 12)
    head = "| " + " | ".join(word(random) for _ in range(columns)) + " |"
    body = "\n".join(
        "| " + " | ".join(random.choice(["", "-", word(random)]) for _ in range(columns)) + " |"
        for _ in range(random.randint(5, 40))
    )
    return f"{head}\n|{'---|' * columns}\n{body}"


def timetable(random: Random) -> str:
    every, first = random.choice([5, 10, 15, 20, 30]), random.randint(300, 400)
    rows = []
    for stop in range(random.randint(8, 25)):
        minutes = [first + stop * 3 + every * n for n in range(random.randint(10, 20))]
        rows.append([name(random), *[f"{m // 60:02}:{m % 60:02}" for m in minutes]])
    return table(rows)


def sequence_of_bases(random: Random) -> str:
    return "\n".join(
        f"{n * 60 + 1} " + " ".join("".join(random.choices("acgt", k=10)) for _ in range(6))
        for n in range(random.randint(10, 60))
    )


def hex_dump(random: Random) -> str:
    return "\n".join(
        f"{n * 16:08x}  "
        + " ".join(f"{random.choice([0, 0, 0, random.randint(0, 255)]):02x}" for _ in range(16))
        for n in range(random.randint(10, 60))
    )


def sudoku(random: Random) -> str:
    grids = random.randint(1, 6)
    return "\n\n".join(
        table(
            [
                [random.choice(["", "", str(random.randint(1, 9))]) for _ in range(9)]
                for _ in range(9)
            ]
        )
        for _ in range(grids)
    )


def redacted(random: Random) -> str:
    return "\n\n".join(
        f"{sentence(random)} {'█' * random.randint(5, 120)} {sentence(random)}" for _ in range(15)
    )


def clause_four_times(random: Random) -> str:
    clause = prose(random, 500)
    return prose(random, 500) + clause * 4 + prose(random, 500)


def in_duplicate(random: Random) -> str:
    """Slips for the bank and for the customer, vouchers to cut out."""
    copies = random.choice([2, 2, 3, 4, 6])
    words = random.randint(30, 2400 // copies)
    slip = f"{sentence(random, 4)}\n{sentence(random, words)} "
    slip += table([[word(random), word(random), ""] for _ in range(random.randint(1, 6))])
    numbered = random.random() < 0.5
    return "\n".join(f"No. {1000 + n * numbered}\n{slip}" for n in range(copies))


def footer_thirteen_times(random: Random) -> str:
    return prose(random, 2000) + "www.example.org  \n\n\n" * 13


def program(random: Random) -> str:
    lines = []
    for _ in range(random.randint(10, 60)):
        indent = " " * 4 * random.randint(0, 5)
        lines.append(f"{indent}{word(random)}[{random.randint(0, 9)}] = {word(random)}(i, j)")
        if random.random() < 0.1:
            lines.append("# " + "-" * 70)
    return "\n".join(lines)


HONEST: Mapping[str, Callable[[Random], str]] = {
    generator.__name__: generator
    for generator in (
        receipt, contents_with_leaders, empty_table, duty_roster, numbered_empty_rows, form_lines,
        attendance, calendar, calendar_in_lines, years, years_alone, number_table, decimal_table,
        zero_one_matrix, sparse_statistics, equal_rows, ticks, scores, multiplication_table, seats,
        line_numbers, bibliography, lines_with_boxes, many_boxes, figures_in_a_grid, song, chords,
        derivation, markdown_table, timetable, sequence_of_bases, hex_dump, sudoku, redacted,
        clause_four_times, in_duplicate, footer_thirteen_times, program,
    )
}  # fmt: skip


# Written when the detector was finished; nothing was tuned on them.


def answer_sheet(random: Random) -> str:
    letters = random.choice(["ⒶⒷⒸⒹ", "ABCD", "□□□□□"])
    return "\n".join(f"{n} {' '.join(letters)}" for n in range(1, random.choice([40, 60, 100]) + 1))


def answer_key(random: Random) -> str:
    return " ".join(f"{n}. {random.choice('ABCD')}" for n in range(1, random.randint(30, 150)))


def powers(random: Random) -> str:
    rows = [[str(n), str(n**2), str(n**3)] for n in range(1, random.randint(20, 50))]
    return table([left + right for left, right in zip(rows, reversed(rows), strict=True)])


def sines(random: Random) -> str:
    step = random.choice([1, 2, 5])
    rows = [
        [str(n * step), f"{sin(n * step / 57.3):.4f}", f"{cos(n * step / 57.3):.4f}"]
        for n in range(46)
    ]
    return table([["°", "sin", "cos"], *rows])


def celsius(_: Random) -> str:
    return table([[str(c), f"{c * 1.8 + 32:.1f}"] for c in range(-30, 60)])


def litany(random: Random) -> str:
    answer = sentence(random, 3)
    return "\n".join(f"{name(random)} {name(random)}, {answer}" for _ in range(70))


def word_index(random: Random) -> str:
    def pages() -> str:
        return ", ".join(str(random.randint(1, 400)) for _ in range(random.randint(1, 6)))

    return "\n".join(f"{word(random)}, {pages()}" for _ in range(random.randint(60, 130)))


def la_la_la(random: Random) -> str:
    line = " ".join(["la"] * random.randint(4, 14))
    return "\n".join(random.choice([line, line, sentence(random, 6)]) for _ in range(40))


def bank_statement(random: Random) -> str:
    day = f"{random.randint(1, 28):02}.{random.randint(1, 12):02}.2024"
    rows = [
        [day, day, random.choice(["Card payment", "Transfer"]), f"-{random.randint(1, 200)}.00"]
        for _ in range(random.randint(20, 60))
    ]
    return table([["Date", "Value", "Text", "Amount"], *rows])


def votes(random: Random) -> str:
    rows = [[name(random), *random.choices(["Y", "N", "-"], k=12)] for _ in range(60)]
    return table(rows)


def knitting(random: Random) -> str:
    rows = random.sample(["K2, p2", "K1, p1", "Knit", "Purl", "P2, k2"], 3)
    return "\n".join(
        f"Row {n}: {rows[n % 3]}, repeat from * to end." for n in range(1, random.randint(20, 60))
    )


def crossword(random: Random) -> str:
    side = random.randint(9, 17)
    return table(
        [
            [random.choice(["", "", "■", str(random.randint(1, 60))]) for _ in range(side)]
            for _ in range(side)
        ]
    )


def ascii_table(random: Random) -> str:
    rule = "+" + "+".join(["-" * random.randint(6, 14)] * 5) + "+"
    return "\n".join(
        f"{rule}\n| {' | '.join(word(random) for _ in range(5))} |"
        for _ in range(random.randint(5, 40))
    )


def parts_list(random: Random) -> str:
    return table(
        [
            [str(n), f"{random.randint(100000, 999999)}", sentence(random, 2), "1", "ea", "EUR"]
            for n in range(1, random.randint(20, 60))
        ]
    )


def address_labels(random: Random) -> str:
    address = (
        f"{name(random)} {name(random)}\n{word(random)} {random.randint(1, 99)}\n{name(random)}"
    )
    return "\n\n".join([address] * random.choice([8, 14, 21, 24]))


def genealogy(random: Random) -> str:
    return "\n".join(
        f"{name(random)} begat {name(random)}; and" for _ in range(random.randint(20, 80))
    )


LATER_HONEST: Mapping[str, Callable[[Random], str]] = {
    generator.__name__: generator
    for generator in (
        answer_sheet, answer_key, powers, sines, celsius, litany, word_index, la_la_la,
        bank_statement, votes, knitting, crossword, ascii_table, parts_list, address_labels,
        genealogy,
    )
}  # fmt: skip


def honest_page(family: str, seed: int) -> str:
    """Return a page that repeats itself as pages do, with some prose around it or without."""
    random = Random(f"{family} {seed}")
    before, after = (prose(random, random.choice([0, 300, 1500])) for _ in range(2))
    text = {**HONEST, **LATER_HONEST}[family](random)
    heading = label(random, "table") if random.random() < 0.5 else ""
    return f"{before}{heading}{text}\n\n{after}"[:PAGE_CHARS]
