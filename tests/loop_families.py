"""Made-up pages that end in a loop, in families that follow what the collected outputs show."""

from __future__ import annotations

import itertools
import string
from collections.abc import Callable, Iterator, Mapping
from datetime import date, timedelta
from random import Random

PAGE_CHARS = 27_000
"""About what 8,192 tokens hold, the context of DeepSeek-OCR, at 3.3 characters each."""

_SYLLABLES = [first + second for first in "bdklmnr" for second in "aeio"]


def word(random: Random) -> str:
    return "".join(random.choices(_SYLLABLES, k=random.randint(1, 4)))


def sentence(random: Random, words: int | None = None) -> str:
    count = words or random.randint(5, 18)
    return " ".join(word(random) for _ in range(count)).capitalize() + "."


def prose(random: Random, chars: int) -> str:
    text = ""
    while len(text) < chars:
        text += " ".join(sentence(random) for _ in range(random.randint(2, 6))) + "\n\n"
    return text


def name(random: Random) -> str:
    return word(random).title()


def row(cells: list[str]) -> str:
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def table(rows: list[list[str]]) -> str:
    return "<table>" + "".join(map(row, rows)) + "</table>"


def counting_cells(random: Random) -> Iterator[str]:
    step = random.choice([1, 1, 1, 2, 5, 10, -1])
    for number in itertools.count(random.randint(0, 3000), step):
        yield f"<td>{number}</td>"


def counting_rows(random: Random) -> Iterator[str]:
    columns, place = random.randint(2, 9), random.randint(0, 1)
    filler = random.choice(["0", "", "-", "Nein", "N/A"])
    for number in itertools.count(random.randint(0, 50)):
        cells = [filler] * columns
        cells[place] = str(number)
        yield row(cells)


def counter_in_filler(random: Random) -> Iterator[str]:
    """What an n-gram guard of the decoder makes of a run: it forces another token in."""
    filler = random.choice(["0 ", "1 ", "0.5ex] ", "\\quad ", "& ", "the ", "<td>0</td>"])
    every = random.randint(3, 12)
    for number in itertools.count(random.randint(0, 20)):
        slip = random.choice([0] * 12 + [-1, 1])
        yield filler * (every + slip) + f"{number} "


def stuttering_counter(random: Random) -> Iterator[str]:
    times = random.randint(3, 10)
    for number in itertools.count(random.randint(0, 20)):
        yield f"{number} " * (times + random.choice([0] * 8 + [1, -1]))


def marching_boxes(random: Random) -> Iterator[str]:
    x, width, height = random.randint(20, 600), random.randint(40, 380), random.randint(9, 40)
    form = random.choice(
        [
            "[[{}, {}, {}, {}]] ",
            "<|ref|>text<|/ref|><|det|>[[{}, {}, {}, {}]]<|/det|>\n",
            "[{}, {}, {}, {}], ",
            "<|ref|>image<|/ref|><|det|>[[{}, {}, {}, {}]]<|/det|>\n \n\n",
        ]
    )
    for y in itertools.count(random.randint(0, 300), height):
        yield form.format(x, y, x + width, y + height)


def halving_formula(random: Random) -> Iterator[str]:
    form = random.choice(
        [
            r"\vec{{r}} = \frac{{1}}{{{}}} \int \vec{{r}} \quad ",
            r"= \frac{{\pi}}{{{}}} ",
            r"\left( \frac{{1}}{{{}}} \right) + ",
        ]
    )
    number = random.randint(1, 9)
    for _ in range(random.randint(4, 14)):
        yield form.format(number)
        number *= 2
    for denominator in itertools.count(number, random.choice([1, 2, 3])):
        yield form.format(denominator)


def number_pairs(random: Random) -> Iterator[str]:
    first, half = random.randint(0, 9), random.choice([True, False])
    for number in itertools.count(random.randint(0, 30)):
        yield f"({first}, {number}) "
        if half:
            yield f"({first}, {number}.5) "


def one_character(random: Random) -> Iterator[str]:
    character = random.choice("□.-_*=x0口 \n~#■…")
    yield from itertools.repeat(character * 5)


def empty_cells(random: Random) -> Iterator[str]:
    yield from itertools.repeat(random.choice(["<td></td>", "<td> </td>", "<td></td><td>", "| "]))


def uneven_empty_rows(random: Random) -> Iterator[str]:
    nested = random.random() * 0.2
    while True:
        cells = "".join(
            "<td><td></td>" if random.random() < nested else "<td></td>"
            for _ in range(random.randint(1, 14))
        )
        yield f"<tr>{cells}</tr>"


def one_word(random: Random) -> Iterator[str]:
    yield from itertools.repeat(word(random) + random.choice([" ", ", ", "\n", "\n\n"]))


def one_line(random: Random) -> Iterator[str]:
    yield from itertools.repeat(
        sentence(random, random.randint(2, 9)) + random.choice(["\n", "  \n\n"])
    )


def one_sentence(random: Random) -> Iterator[str]:
    yield from itertools.repeat(sentence(random, random.randint(6, 25)) + " ")


def one_paragraph(random: Random) -> Iterator[str]:
    yield from itertools.repeat(prose(random, random.randint(200, 1200)))


def one_row(random: Random) -> Iterator[str]:
    yield from itertools.repeat(row([word(random) for _ in range(random.randint(2, 8))]))


def one_block(random: Random) -> Iterator[str]:
    """A labelled block again and again; in half of them its box moves."""
    text, moves = sentence(random), random.random() < 0.5
    y = random.randint(20, 80)
    while True:
        yield f"<|ref|>text<|/ref|><|det|>[[110, {y}, 880, {y + 18}]]<|/det|>\n{text} \n\n"
        y += 20 * moves


def _misspelt(random: Random, name: str) -> str:
    letters = list(name)
    letters[random.randrange(len(letters))] = random.choice(string.ascii_lowercase)
    return "".join(letters)


def drifting_lines(random: Random) -> Iterator[str]:
    spellings = [f"{word(random)}{word(random)}".capitalize()]
    second = word(random).capitalize()
    while True:
        if random.random() < 0.06:
            spellings.append(_misspelt(random, spellings[-1]))
        yield f"{random.choice(spellings[-4:])} {second}\n\n"


def lines_in_changing_order(random: Random) -> Iterator[str]:
    lines = [
        f"{word(random)}{word(random)}: {sentence(random, 3)}" for _ in range(random.randint(2, 6))
    ]
    while True:
        yield random.choice(lines) + "\n\n"


def symbol_soup(random: Random) -> Iterator[str]:
    symbols = random.choice(
        [
            [r"\q ", r"\qq ", r"\ q "],
            [r"\quad ", r"\qquad "],
            ["overline[[", "overline[", "underline["],
            ["& ", r"\cdot "],
        ]
    )
    weights = [1.0, *(random.uniform(0.05, 0.6) for _ in symbols[1:])]
    while True:
        yield random.choices(symbols, weights)[0]


def alphabet_with_primes(random: Random) -> Iterator[str]:
    letters = random.sample(string.ascii_uppercase, random.randint(8, 26))
    counting = set(random.sample(letters, 3))
    for number in itertools.count(1):
        for letter in letters:
            yield f"{letter}' = {number if letter in counting else 0}, "


def growing_matrices(random: Random) -> Iterator[str]:
    step = random.choice([1, 10])
    for number in itertools.count(10, step):
        rows = " \\\\\n".join(["a_{11}", "a_{22}", f"a_{{{number}}}"])
        yield f"\\begin{{pmatrix}}\n{rows}\n\\end{{pmatrix}}\n"


LOOPS: Mapping[str, Callable[[Random], Iterator[str]]] = {
    generator.__name__: generator
    for generator in (
        counting_cells, counting_rows, counter_in_filler, stuttering_counter, marching_boxes,
        halving_formula, number_pairs, one_character, empty_cells, uneven_empty_rows, one_word,
        one_line, one_sentence, one_paragraph, one_row, one_block, drifting_lines,
        lines_in_changing_order, symbol_soup, alphabet_with_primes, growing_matrices,
    )
}  # fmt: skip


# Written when the detector was finished; nothing was tuned on them.


def counting_dates(random: Random) -> Iterator[str]:
    day = date(random.randint(1950, 2025), random.randint(1, 12), 1)
    ending = random.choice([" ", "\n", "</td><td>", ", "])
    while True:
        yield day.isoformat() + ending
        day += timedelta(days=1)


def counting_times(random: Random) -> Iterator[str]:
    step = random.choice([5, 10, 15, 30])
    for minute in itertools.count(0, step):
        yield f"{minute // 60 % 24:02}:{minute % 60:02} "


def counting_captions(random: Random) -> Iterator[str]:
    text = sentence(random, random.randint(3, 10))
    for number in itertools.count(1):
        yield f"<center>Table {number}: {text}</center>\n\n"


def counting_links(random: Random) -> Iterator[str]:
    host = word(random)
    for number in itertools.count(random.randint(1, 9999)):
        yield f"https://www.{host}.com/{word(Random(host))}?id={number}\n"


def markdown_rows(random: Random) -> Iterator[str]:
    cells = " | ".join(random.choice(["0", "-", "x", ""]) for _ in range(random.randint(2, 8)))
    for number in itertools.count(1):
        yield f"| {number} | {cells} |\n"


def array_rows(random: Random) -> Iterator[str]:
    yield from itertools.repeat(" & ".join("0" * random.randint(2, 9)) + r" \\\\ ")


def chinese_sentence(random: Random) -> Iterator[str]:
    signs = [chr(random.randint(0x4E00, 0x9000)) for _ in range(random.randint(5, 40))]
    yield from itertools.repeat("".join(signs) + random.choice(["。", "，", "\n"]))


def russian_line(random: Random) -> Iterator[str]:
    letters = "абвгдежзиклмнопрстуфхцчшыэюя"
    words = ["".join(random.choices(letters, k=random.randint(2, 9))) for _ in range(6)]
    yield from itertools.repeat(
        " ".join(words[: random.randint(1, 6)]) + random.choice(["\n", " "])
    )


def opened_tags(random: Random) -> Iterator[str]:
    yield from itertools.repeat(
        random.choice(["<|ref|>", "<|ref|><|/ref|>", "<|det|>[[", "<table>"])
    )


def paragraph_with_a_changing_word(random: Random) -> Iterator[str]:
    words = sentence(random, random.randint(15, 60)).split()
    while True:
        words[random.randrange(len(words))] = word(random)
        yield " ".join(words) + "\n\n"


def bracketed_numbers(random: Random) -> Iterator[str]:
    for number in itertools.count(random.randint(1, 99)):
        yield f"[{number}] "


def counting_numbers(random: Random) -> Iterator[str]:
    ending = random.choice([" ", ", ", "\n", " & "])
    for number in itertools.count(random.randint(1, 2000)):
        yield f"{number}{ending}"


def spaces_of_latex(random: Random) -> Iterator[str]:
    yield from itertools.repeat(random.choice([r"\ ", r"\, ", r"\quad ", "~", r"\hspace{1cm} "]))


LATER_LOOPS: Mapping[str, Callable[[Random], Iterator[str]]] = {
    generator.__name__: generator
    for generator in (
        counting_dates, counting_times, counting_captions, counting_links, markdown_rows,
        array_rows, chinese_sentence, russian_line, opened_tags, paragraph_with_a_changing_word,
        bracketed_numbers, counting_numbers, spaces_of_latex,
    )
}  # fmt: skip


def looping_page(family: str, seed: int) -> tuple[str, int]:
    """Return a page that loops until the context is full, and where the loop begins."""
    random = Random(f"{family} {seed}")
    good = prose(random, random.choice([0, 300, 1500, 4000]))
    if family in {"counting_cells", "empty_cells"}:
        good += "<table><tr>"
    elif family in {"counting_rows", "uneven_empty_rows", "one_row"}:
        good += "<table>" + row([word(random) for _ in range(5)])
    pieces, size = [good], len(good)
    for piece in {**LOOPS, **LATER_LOOPS}[family](random):
        pieces.append(piece)
        size += len(piece)
        if size >= PAGE_CHARS:
            break
    return "".join(pieces), len(good)
