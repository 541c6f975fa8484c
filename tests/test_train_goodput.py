"""Where a training's time went, over all of its starts."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.train.goodput import JOURNAL, LABELS, Account, Journal, account, read_journal


class Clock:
    """Tells what is set, whatever the time is."""

    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


def start(folder: Path, clock: Clock, step: int, began: float) -> Journal:
    return Journal(folder, step, clock, began)


def test_time_of_all_starts_is_told_by_what_it_went_into(tmp_path: Path) -> None:
    clock = Clock()
    journal = start(tmp_path, clock, 0, 990.0)  # ten seconds until the first step
    clock.at += 20
    assert journal.note(10, 5.0) == Account(steps=15, waiting=5, starting=10)
    journal.beside(4.0)
    clock.at += 24
    assert journal.note(20, 5.0) == Account(steps=35, waiting=5, beside=4, starting=10)
    clock.at += 10
    journal.note(25, 7.0)
    journal.close()
    # Killed later; the newest checkpoint is of step 20, so five steps are done again, and two seconds of waiting.
    clock.at += 100
    again = start(tmp_path, clock, 20, clock.at - 30)
    clock.at += 12
    found = again.note(26, 0.0)
    assert found == Account(steps=47, waiting=5, beside=4, starting=40, repeated=10, stopped=70)
    assert found.total == 176 and found.goodput == 47 / 176
    assert account(read_journal(tmp_path)) == found
    told = (
        "goodput 26.7% of 0:02:56 since the first start; 2.8% waiting for data, 2.3% saving, validating and"
    )
    assert found.told.startswith(told) and found.told.endswith(", 39.8% stopped, or waiting to start")
    assert set(asdict(found)) == set(LABELS)


def test_of_steps_noted_together_those_before_a_restart_count(tmp_path: Path) -> None:
    clock = Clock()
    journal = start(tmp_path, clock, 0, clock.at)
    clock.at += 10
    journal.note(10, 0.0)
    again = start(tmp_path, clock, 4, clock.at)
    clock.at += 6
    assert again.note(10, 0.0) == Account(steps=10, repeated=6)
    third = start(tmp_path, clock, 0, clock.at)
    assert third.note(0, 0.0) == Account(repeated=16)


@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 50), st.floats(0, 1e4), st.floats(0, 1e4), st.floats(0, 1e4))
    )
)
def test_seconds_add_up_to_all_that_passed(events: list[tuple[bool, int, float, float, float]]) -> None:
    lines: list[dict[str, Any]] = [{"began": 0.0, "at": 0.0, "step": 0}]
    at, step = 0.0, 0
    for is_start, number, passed, waited, beside in events:
        if is_start:
            lines.append({"began": at + passed / 2, "at": at + passed, "step": min(number, step)})
        else:
            more = {"waited": waited, "beside": beside}
            lines.append({"at": at + passed, "step": step + number, **more})
        at, step = lines[-1]["at"], lines[-1]["step"]
    found = account(lines)
    assert found.total == pytest.approx(at, abs=1e-6)
    assert all(seconds >= -1e-9 for seconds in asdict(found).values())


def test_a_journal_that_a_kill_has_cut_or_that_is_none_costs_a_line_and_no_training(tmp_path: Path) -> None:
    clock = Clock()
    start(tmp_path, clock, 0, clock.at).close()
    path = tmp_path / JOURNAL
    for text in ('{"at": 1001.0, "st', "null\n", '{"at": "x", "step": 1}\n', "\xff\n", '{"at": 1.0}\n'):
        with path.open("a", encoding="latin-1") as file:
            file.write(text)
    journal = start(tmp_path, clock, 0, clock.at)
    clock.at += 2
    assert journal.note(2, 0.0) == Account(steps=2)
    lines = [json.loads(line) for line in path.read_text(errors="replace").splitlines()[-2:]]
    assert [line["step"] for line in lines] == [0, 2]
    assert account([]) == Account() and Account().goodput == 0 and read_journal(tmp_path / "none") == []


def test_a_clock_that_was_set_back_makes_nothing_negative(tmp_path: Path) -> None:
    clock = Clock()
    journal = start(tmp_path, clock, 0, clock.at + 5)
    clock.at -= 100
    assert journal.note(3, 1.0) == Account()
