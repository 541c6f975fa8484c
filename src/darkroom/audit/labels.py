"""Labels as the page saves them, or as anybody may have written them: a CSV with columns uid and label."""

import csv
import io
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from darkroom.store.found import read_bytes, shown

_MAX_BYTES = 64 << 20
_UID = re.compile(r"[0-9a-f]{32}")
_ANSWERS = {"yes": True, "no": False, "unsure": None}
_SHOWN = 3  # rows of a kind that a message names


@dataclass
class Labels:
    """What a file says of an audit's sample.

    Attributes:
        of: uid -> whether the picture is what the score is about, of pictures of the sample with yes or no.
        counts: what became of the rows and of the sample's pictures. `labelled`, `unsure` and `unlabelled` are
            pictures of the sample. Rows: `of another audit` (a picture of the dataset that this sample does not
            hold), `unknown uid` (no picture of the dataset), `no label` (another word than yes, no and unsure),
            `given twice` (the last counts), `given twice with another answer`, and `score has changed` (another
            than the sample's, which counts).
        examples: for these, a few rows in words.
        strangers: uids that the sample does not hold.
    """

    of: dict[str, bool] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    strangers: list[str] = field(default_factory=list)

    def note(self, what: str, row: str) -> None:
        """Count a row, and keep it as an example while there are few."""
        self.counts[what] += 1
        if len(kept := self.examples.setdefault(what, [])) < _SHOWN:
            kept.append(row)

    def lines(self) -> list[str]:
        """The counts in words, a line each; what did not happen is left out."""
        told = []
        for what in ("labelled", "unsure", "unlabelled", *sorted(self.examples)):
            if self.counts[what] or what == "labelled":
                rows = f" ({'; '.join(self.examples[what])})" if what in self.examples else ""
                told.append(f"{what}: {self.counts[what]:,}{rows}")
        return told


def read_labels(path: Path, sample: pl.DataFrame) -> Labels:
    """Read a CSV of labels; of its columns uid and label count, and scores and weights are the sample's own.

    Uids that the sample does not hold are left in `strangers`, for `tell_strangers`.

    Raises:
        ValueError: it is no CSV with columns uid and label, is too large, or has no yes and no no.
        OSError: it cannot be read.
    """
    text = read_bytes(path, _MAX_BYTES).decode("utf-8-sig", errors="replace")
    reader = csv.DictReader(io.StringIO(text, newline=""))
    scores: dict[str, float] = dict(sample.select("uid", "score").iter_rows())
    labels, answers = Labels(), dict[str, bool | None]()
    try:
        names = [name or "" for name in reader.fieldnames or ()]
        missing = [name for name in ("uid", "label") if name not in names]
        if missing:
            raise ValueError(
                f"{path}: no column {missing[0]!r}; it has {', '.join(map(shown, names[:8])) or 'none'}; the"
                " page saves uid, score, weight, label"
            )
        for row in reader:
            _read_row(row, f"line {reader.line_num}", scores, labels, answers)
    except csv.Error as error:
        raise ValueError(f"{path}: line {reader.line_num}: no CSV ({error})") from None
    labels.of = {uid: answer for uid, answer in answers.items() if answer is not None}
    labels.counts["labelled"] = len(labels.of)
    labels.counts["unsure"] = len(answers) - len(labels.of)
    labels.counts["unlabelled"] = len(scores) - len(answers)
    if not labels.of:
        raise ValueError(
            f"{path}: labels no picture of this audit with yes or no; {'; '.join(labels.lines())}"
        )
    return labels


def _read_row(
    row: dict[str, str | None],
    where: str,
    scores: dict[str, float],
    labels: Labels,
    answers: dict[str, bool | None],
) -> None:
    uid, label = (row["uid"] or "").strip(), (row["label"] or "").strip().lower()
    if (uid, label) == ("uid", "label"):
        return  # the header of a table that was put behind another
    if uid not in scores:
        if _UID.fullmatch(uid):
            labels.strangers.append(uid)
        else:
            labels.note("unknown uid", f"{where}: {uid[:40]!r}")
        return
    if label and label not in _ANSWERS:
        labels.note("no label", f"{where}: {label[:40]!r}")
        return
    if _differs(row.get("score"), scores[uid]):
        labels.note("score has changed", where)
    if not label:
        return
    if uid in answers:
        is_same = answers[uid] == _ANSWERS[label]
        labels.note("given twice" if is_same else "given twice with another answer", where)
    answers[uid] = _ANSWERS[label]


def _differs(told: str | None, score: float) -> bool:
    try:
        return bool(told) and float(told or "") != score
    except ValueError:
        return True


def tell_strangers(labels: Labels, known: set[str]) -> None:
    """Count uids that the sample does not hold: of another audit of the dataset with uids `known`, or unknown."""
    for uid in labels.strangers:
        labels.note("of another audit" if uid in known else "unknown uid", uid)
    labels.strangers.clear()
