"""Text rendering: what is compared, by cases made by hand; and what the OCR reads of words that are drawn."""

import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import polars as pl
import pytest
from doc_pages import DOCS, rows_after
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from darkroom.components.tesseract import Tesseract
from darkroom.evaluate.comparison import comparison_markdown
from darkroom.evaluate.scores import difference, score, score_names
from darkroom.metrics.base import Inputs
from darkroom.metrics.table import METRICS, split_by_applicability
from darkroom.metrics.text_rendering import Fit, asked_for, fit, likeness
from darkroom.quotes import quoted_texts
from darkroom.report.results import read_results
from darkroom.report.table import results_markdown
from darkroom.store import write_json
from darkroom.watch.judged import read_judged

SPEC = METRICS["text_rendering"]


@pytest.mark.parametrize(
    ("text", "other", "expected"),
    [
        ("kitten", "sitting", 1 - 3 / 7),
        ("open", "open", 1.0),
        ("open", "opem", 0.75),
        ("open", "", 0.0),
        ("", "", 1.0),
        ("flaw", "lawn", 0.5),
        ("ab", "ba", 0.0),
        ("saturday", "sunday", 1 - 3 / 8),
        ("a", "aaaa", 0.25),
    ],
)
def test_a_likeness_is_one_less_the_edits_of_the_longer_text(text: str, other: str, expected: float) -> None:
    assert likeness(text, other) == pytest.approx(expected)
    assert likeness(other, text) == pytest.approx(expected)


def levenshtein(text: str, other: str) -> int:
    """The recursion of the definition."""
    if not text or not other:
        return len(text) + len(other)
    kept = levenshtein(text[1:], other[1:])
    if text[0] == other[0]:
        return kept
    return 1 + min(kept, levenshtein(text[1:], other), levenshtein(text, other[1:]))


@given(st.text("ab", max_size=6), st.text("abc", max_size=6))
def test_the_distance_is_levenshteins(text: str, other: str) -> None:
    longer = max(len(text), len(other))
    assert likeness(text, other) == pytest.approx(1 - levenshtein(text, other) / longer if longer else 1)


@pytest.mark.parametrize(
    ("quoted", "lines", "accuracy", "ned", "word_f1"),
    [
        (["Open Daily"], ["OPEN", "daily"], 1, 1, 1),
        (["Open Daily"], ["open daily!"], 1, 1, 1),
        # One letter of nine is wrong; one word of two is read, and one of two is quoted.
        (["open daily"], ["open", "dally"], 0, 8 / 9, 0.5),
        # A space that is not read: no letter is wrong, no word is right.
        (["open daily"], ["opendaily"], 0, 1, 0),
        # What nobody asked for leaves the quoted text as it is.
        (["open"], ["welcome", "open"], 0, 1, 2 / 3),
        (["open"], [], 0, 0, 0),
        # Words count as often as they stand there.
        (["ha ha ha"], ["ha ha"], 0, 4 / 6, 4 / 5),
        # Of two texts one is read, of the other two of four letters.
        (["stop", "west"], ["stop", "we"], 0, (1 + 0.5) / 2, 0.5),
        (["west", "stop"], ["STOP", "WEST"], 1, 1, 1),
        (["café №5"], ["CAFÉ No5"], 1, 1, 1),
        (["don't"], ["DON\u2019T"], 1, 1, 1),
    ],
)
def test_cases_made_by_hand(
    quoted: list[str], lines: list[str], accuracy: float, ned: float, word_f1: float
) -> None:
    assert fit(quoted, lines) == pytest.approx(Fit(accuracy, ned, word_f1))


def test_a_prompt_asks_for_what_it_quotes_whatever_the_quotation_marks() -> None:
    prompt = "a sign \"Open\" by Tom's “bar”, «ici» and 'sale today' \u2018here\u2019, the dogs' \"...\""
    assert quoted_texts(prompt) == ["Open", "bar", "ici", "sale today", "here", "..."]
    assert asked_for({"prompt": prompt}) == ["Open", "bar", "ici", "sale today", "here"]
    bare = [{"prompt": "a cat", "tag": "prompts"}, {"prompt": 'a "!"', "tag": "prompts"}]
    named, reasons = split_by_applicability(["text_rendering"], bare)
    assert not named and "text rendering does not apply: no prompt quotes words" in reasons["text_rendering"]
    assert split_by_applicability(["text_rendering"], [*bare, {"prompt": 'a "b"'}])[0] == ["text_rendering"]


@dataclass
class Drawn:
    """Pictures that stand for drawn ones, one for each prompt."""

    found: Sequence[np.ndarray]
    model: str = "trained"

    def table(self) -> pl.DataFrame:
        number = len(self.found)
        return pl.DataFrame(
            {"model": [self.model] * number, "prompt_index": range(number), "picture": [0] * number}
        )

    def pictures(self) -> Iterator[np.ndarray]:
        return iter(self.found)


class Told:
    """Stands for an OCR: its lines are those of the picture's number, its first pixel."""

    def __init__(self, lines: dict[int, list[str]]) -> None:
        self.lines = lines

    def __call__(self, picture: np.ndarray) -> tuple[list[Any], None]:
        return [
            [[[0, 0], [9, 0], [9, 9], [0, 9]], text, 0.9] for text in self.lines[int(picture[0, 0, 0])]
        ], None


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> pl.DataFrame:
    """Three prompts, of which one quotes nothing, and two models' pictures."""
    told = {0: ["OPEN"], 1: ["closed"], 2: ["o p"], 9: []}
    monkeypatch.setattr("darkroom.metrics.text_rendering.reader", lambda *_: Told(told))
    records = [{"prompt": text, "tag": "prompts"} for text in ('says "open"', 'says "closed"', "a cat")]
    trained, untrained = (Drawn([np.full((8, 8, 3), n, np.uint8) for n in numbers], model)
                          for model, numbers in (("trained", (0, 1, 9)), ("untrained", (2, 9, 9))))  # fmt: skip
    measured = SPEC.measure(SPEC.section(), Inputs({"trained": trained, "untrained": untrained}, records))
    assert measured.counts == {"no_quoted_text": 2}
    assert measured.protocol["ocr"]["name"] == "rapidocr-onnxruntime 1.4.4"
    assert measured.protocol["definition"] == "quoted words as rapidocr-onnxruntime 1.4.4 reads them"
    return measured.table


def test_pictures_whose_prompt_quotes_nothing_have_no_score(table: pl.DataFrame) -> None:
    assert table["text_accuracy"].to_list() == [1, 1, None, 0, 0, None]
    assert table["text_ned"].to_list() == [1, 1, None, 0.5, 0, None]
    assert table["text_read"].to_list() == ["OPEN", "closed", None, "o p", "", None]


def test_accuracy_ned_and_word_f1_are_scores_with_intervals_wherever_scores_are_told(
    table: pl.DataFrame, tmp_path: Path
) -> None:
    whole = table.with_columns(tag=pl.lit("prompts"))
    measured = {"text_rendering": table}
    trained, untrained = (score(model, whole, measured, 50, 0) for model in ("trained", "untrained"))
    assert trained["text_rendering"] == {
        f"{column}{end}": 1 for column in SPEC.parts for end in ("", "_low", "_high")
    }
    assert untrained["text_rendering"]["text_ned"] == 0.25
    assert (untrained["text_rendering"]["text_ned_low"], untrained["text_rendering"]["text_ned_high"]) == (
        0,
        0.5,
    )
    gap = difference("trained", "untrained", whole, measured, 50, 0)
    assert gap["text_rendering"]["text_ned"] == 0.75 and gap["text_rendering"]["text_ned_low"] == 0.5
    labels = {
        "text_accuracy": "Text rendering, accuracy",
        "text_ned": "Text rendering, NED",
        "text_word_f1": "Text rendering, word F1",
    }
    assert score_names(SPEC, trained["text_rendering"]) == labels
    compared = {
        "scores": {"a": trained, "b": untrained},
        "differences": {"b": difference("untrained", "trained", whole, measured, 50, 0)},
    }
    assert "| Text rendering, NED | 1.00 | 0.25 | -0.75 (-1.00 to -0.50) |" in comparison_markdown(compared)
    body = {"trained": trained, "untrained": untrained, "difference": gap, "protocol": {}}
    assert "| Text rendering, NED | 1.00 (1.00 to 1.00) | 0.25 (0.00 to 0.50) |" in results_markdown(body)
    write_json(tmp_path / "step.json", {"step": 3, "model": "0", "scores": untrained, "protocol": {}})
    (step,) = read_judged([tmp_path / "step.json"])
    assert step.scores == {"text_rendering": 0} and step.bounds == {"text_rendering": (0, 0)}
    write_json(tmp_path / "metrics.json", body)
    results = read_results(tmp_path / "metrics.json")
    assert [row["name"] for row in results["numbers"]] == list(labels.values())
    assert results["headline"] == {"name": "Text rendering, accuracy", "trained": "1.00", "untrained": "0.00"}


FONTS = Path(matplotlib.get_data_path()) / "fonts/ttf"
FAMILIES = {
    "DejaVuSans": ("", "-Bold", "-Oblique", "-BoldOblique"),
    "DejaVuSansMono": ("", "-Bold", "-Oblique", "-BoldOblique"),
    "DejaVuSerif": ("", "-Bold", "-Italic", "-BoldItalic"),
    "STIXGeneral": ("", "Bol", "Italic", "BolIta"),
    "cm": ("r10", "b10", "ss10", "tt10"),
}
FILES = [FONTS / f"{family}{style}.ttf" for family, styles in FAMILIES.items() for style in styles]
TEXTS = (
    "Open Daily", "Fresh Bread", "North Station", "Quiet Please", "Summer Sale", "Happy Birthday", "Mind The Gap",
    "Room 204", "Good Morning", "Wet Paint", "Coffee House", "Last Exit", "Keep Left", "Grand Hotel", "Lost Dog",
    "Free Parking", "World Peace", "Blue Velvet", "Night Market", "Garden Party",
)  # fmt: skip
SIZES_PX, ROTATIONS = (12, 16, 24, 48, 80), (10, 20, 45, 90, 180)
SIDE_PX, USUAL_PX = 640, 48
HEADER = "| Words | Pictures | Accuracy | NED | Word F1 |"


def drawn(file: Path, text: str, size: int, rotation: int) -> np.ndarray:
    """Dark words in the middle of a light ground."""
    font = ImageFont.truetype(str(file), size)
    layer = Image.new("L", (SIDE_PX, SIDE_PX))
    ImageDraw.Draw(layer).text((SIDE_PX / 2, SIDE_PX / 2), text, font=font, fill=255, anchor="mm")
    layer = layer.rotate(rotation, Image.Resampling.BICUBIC)
    picture = Image.new("RGB", (SIDE_PX, SIDE_PX), (236, 230, 214))
    picture.paste((40, 44, 60), mask=layer)
    return np.asarray(picture)


def kinds_of_words() -> dict[str, list[tuple[Path, str, int, int]]]:
    """What the docs call it -> font, text, size and rotation of each picture; each font has another text."""

    def each(size: int, rotation: int, shift: int) -> list[tuple[Path, str, int, int]]:
        return [(file, TEXTS[(i + shift) % len(TEXTS)], size, rotation) for i, file in enumerate(FILES)]

    sizes = {f"{size} px": each(size, 0, shift) for shift, size in enumerate(SIZES_PX)}
    turned = {f"{USUAL_PX} px, turned by {a}°": each(USUAL_PX, a, 7 + i) for i, a in enumerate(ROTATIONS)}
    return sizes | turned


@pytest.mark.real
def test_the_ocr_reads_words_in_twenty_fonts_sizes_and_rotations_as_the_docs_tell() -> None:
    assert len(FILES) == 20 == len(TEXTS)
    told = {row[0]: row[1:] for row in rows_after((DOCS / "measure.md").read_text(), HEADER)}
    kinds = kinds_of_words()
    assert list(told) == list(kinds)
    found = {}
    for name, cases in kinds.items():
        records = [{"prompt": f'a sign that says "{text}"', "tag": "prompts"} for _, text, _, _ in cases]
        pictures = Drawn([drawn(*case) for case in cases])
        table = SPEC.measure(SPEC.section(), Inputs({"trained": pictures}, records)).table
        found[name] = [table.height, *(table[column].mean() for column in SPEC.parts)]
    for name, (number, *means) in found.items():
        assert int(told[name][0]) == number
        # One picture is 0.05; another processor may read one otherwise.
        assert means == pytest.approx([float(cell) for cell in told[name][1:]], abs=0.07), f"{name}: {means}"


HAS_TESSERACT = shutil.which("tesseract") is not None


def rendered(engine: str, texts: Sequence[str], file: Path = FILES[0]) -> Any:
    records = [{"prompt": f'a sign that says "{text}"', "tag": "prompts"} for text in texts]
    pictures = Drawn([drawn(file, text, USUAL_PX, 0) for text in texts])
    return SPEC.measure(SPEC.section(engine=engine), Inputs({"trained": pictures}, records))


@pytest.mark.skipif(not HAS_TESSERACT, reason="no tesseract: apt-get install tesseract-ocr")
def test_tesseract_reads_words_and_its_protocol_tells_it_from_another() -> None:
    found = rendered("tesseract", ["Fresh Bread", "North Station", "Quiet Please"])
    assert found.table["text_accuracy"].to_list() == [1, 1, 1]
    assert [text.split() for text in found.table["text_read"]] == [
        ["Fresh", "Bread"], ["North", "Station"], ["Quiet", "Please"]
    ]  # fmt: skip
    ocr = found.protocol["ocr"]
    assert re.fullmatch(r"tesseract \d+\.\d+\.\d+\S*", ocr["name"]) and len(ocr["sha256"]) == 64
    assert SPEC.named(found.protocol).label == f"Text rendering ({ocr['name']})"
    assert found.protocol["definition"] == f"quoted words as {ocr['name']} reads them"
    blank = np.full((64, 64, 3), 255, np.uint8)
    inputs = Inputs({"trained": Drawn([blank])}, [{"prompt": 'says "open"', "tag": "prompts"}])
    (read,) = SPEC.measure(SPEC.section(engine="tesseract"), inputs).table["text_read"]
    assert read == ""


PLAYED = r"""#!/bin/sh
case "$1" in
--version) echo "tesseract 5.9.1"; echo " leptonica-1.82.0";;
--list-langs) echo "List of available languages in \"$FOLDER/\" (1):"; echo eng;;
*) cat >/dev/null
   printf 'level\tpage_num\tblock_num\tpar_num\tline_num\tword_num\tleft\ttop\twidth\theight\tconf\ttext\n'
   printf '1\t1\t0\t0\t0\t0\t0\t0\t640\t640\t-1\t\n'
   printf '5\t1\t1\t1\t1\t1\t0\t0\t9\t9\t96.5\tFresh "\n5\t1\t1\t1\t1\t2\t0\t0\t9\t9\t49.9\tnoise\n'
   printf '5\t1\t2\t1\t1\t1\t0\t0\t9\t9\t50\tBread\n' ; exit $STATUS;;
esac
"""


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that answers as tesseract does."""
    program = tmp_path / "bin/tesseract"
    program.parent.mkdir()
    program.write_text(PLAYED)
    program.chmod(0o755)
    (tmp_path / "eng.traineddata").write_bytes(b"learned")
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FOLDER", str(tmp_path))
    monkeypatch.setenv("STATUS", "0")
    return program


def test_words_of_tesseract_are_lines_and_what_it_is_unsure_of_does_not_count(
    played: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = rendered("tesseract", ["Fresh Bread"])
    assert found.table["text_read"].to_list() == ['Fresh "\nBread'] and found.table["text_ned"].to_list() == [
        1
    ]
    assert found.protocol["ocr"]["name"] == "tesseract 5.9.1"
    assert found.protocol["ocr"]["sha256"] == hashlib.sha256(b"learned").hexdigest()
    assert found.protocol["ocr"]["pictures"] == "longer side at most 960 px (bicubic); RGB"
    monkeypatch.setenv("STATUS", "3")
    with pytest.raises(RuntimeError, match="tesseract ended with 3"):
        rendered("tesseract", ["Fresh Bread"])
    (tmp_path / "eng.traineddata").unlink()
    with pytest.raises(ValueError, match=r"has no eng\.traineddata: `apt-get install tesseract-ocr-eng`"):
        rendered("tesseract", ["Fresh Bread"])
    played.write_text('#!/bin/sh\n[ "$1" = stdin ] && exec sleep 60\necho "tesseract 5"\n')
    monkeypatch.setattr("darkroom.components.tesseract._TIMEOUT_S", 0.5)
    with pytest.raises(RuntimeError, match="tesseract took more than 0 s for a picture"):
        Tesseract(0.5).lines(np.zeros((9, 9, 3), np.uint8))


def test_a_program_that_is_not_here_is_refused_before_any_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    told = "measure.text_rendering needs the program tesseract, which is not here: `apt-get install tesseract-ocr`"
    with pytest.raises(ValueError, match=re.escape(told)):
        SPEC.check(SPEC.section(engine="tesseract"), [], {})
    assert "engine" not in SPEC.section().model_dump()
