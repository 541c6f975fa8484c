"""The commands of speed/ run, and their gates hold; of seconds nothing is expected."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import warm
from conftest import ROOT

sys.path.insert(0, str(ROOT / "speed"))

import race
import table
from race import Figure

from darkroom.config.compiling import missing_compiler

# The first starts Snakemake nine times, and the second compiles for half a minute.
SLOW = {"plan.py", "train_step.py"}


@pytest.mark.parametrize(
    "script",
    [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name, _ in table.ROWS],
)
def test_every_row_of_the_table_is_a_command_whose_sides_agree(script: str, tmp_path: Path) -> None:
    if script == "train_step.py" and missing_compiler():
        pytest.skip(missing_compiler())
    found = tmp_path / "found.json"
    command = ["python", str(ROOT / "speed" / script), "--size", "smallest", "--repeats", "1", "--json"]
    # Sides are forks: of what they import the test expects nothing.
    environment = warm.jobs.environment(os.environ)
    done = subprocess.run([*command, str(found)], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    result = json.loads(found.read_text())
    assert result["figures"] and not result["wrong"]
    for figure in table.figures_of(result):
        # A peer that is installed on demand is left out where it cannot be had, and says so.
        assert (figure.value is not None and figure.value > 0) or "cannot be installed" in figure.why_not
        assert figure.what in done.stdout


def test_a_row_whose_sides_disagree_ends_with_1_and_times_nothing(tmp_path: Path) -> None:
    script = tmp_path / "row.py"
    code = """
        import sys
        sys.path.insert(0, {speed!r})
        import race
        from race import Race, Side, Work

        def says(answer):
            return lambda folder, sizes: Work(lambda: sys.exit("was timed"), lambda: answer)

        sides = (Side("darkroom", says([1])), Side("right", says([1]), 2.0), Side("other", says([2]), 2.0))
        race.main(Race("sums", {{"large": {{}}}}, sides, lambda sizes: "small ones"), "words")
    """
    script.write_text(textwrap.dedent(code).format(speed=str(ROOT / "speed")))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert done.returncode == 1
    assert "WRONG: other gives another answer: [2] where ours is [1]" in done.stdout
    assert "right gives another" not in done.stdout


def test_goals_are_least_ratios_and_most_seconds_and_no_peer_is_no_goal_met() -> None:
    assert Figure("peer", "x", 2.0, 2.0).is_met and not Figure("peer", "x", 2.0, 1.9).is_met
    assert Figure("job", "s", 2.0, 2.0).is_met and not Figure("job", "s", 2.0, 2.1).is_met
    assert not Figure("peer", "x", 2.0, None, why_not="peer==1 cannot be installed").is_met


def test_the_page_keeps_lost_rows_and_what_was_left_out() -> None:
    figures = [Figure("won", "x", 2.0, 3.0, 3.5), Figure("lost", "x", 2.0, 0.5, 0.6)]
    figures.append(Figure("absent", "x", 2.0, why_not="absent==1 cannot be installed (no network)"))
    result = race.Result("sums", "small ones", figures)
    text = table.page({"sums.py": race.asdict(result)}, "small", "1 of 3 goals met.")
    assert "| [sums](../speed/sums.py): small ones | won | 3.00 x | 3.50 x | 2 x | met |" in text
    assert "|  | lost | 0.50 x | 0.60 x | 2 x | missed |" in text
    assert "| not measured: absent==1 cannot be installed (no network) |" in text
    assert "1 of 3 goals met." in text


def test_the_page_has_every_row() -> None:
    text = (ROOT / "docs/speed.md").read_text(encoding="utf-8")
    assert all(f"](../speed/{script}): " in text for script, _ in table.ROWS), "run: make speed"
    assert " goals met." in text


def test_one_row_can_be_measured_again_and_the_others_stay() -> None:
    text = "# Speed\n\n| Work | Peer |\n|---|---|\n| [a](../speed/a.py): x | p | old |\n|  | q | old |\n"
    text += "| [b](../speed/b.py): y | r | old |\n\nMeasured on one.\n\n## Where\n\n- a profile\n"
    changed = table.replaced(text, "a.py", ["| [a](../speed/a.py): x | p | new |"], "another")
    again = table.replaced(changed, "a.py", ["| [a](../speed/a.py): x | p | newer |"], "another")
    assert again.replace("newer", "new") == changed
    assert "| p | new |\n| [b](../speed/b.py): y | r | old |\n\nMeasured on one.\n" in changed
    assert "\nMeasured apart: a.py on another.\n\n## Where\n" in changed and "q" not in changed
    added = table.replaced(text, "c.py", ["| [c](../speed/c.py): z | p | new |"], "another")
    assert "| r | old |\n| [c](../speed/c.py): z | p | new |\n\nMeasured" in added
