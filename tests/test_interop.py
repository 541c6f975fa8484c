"""Exports in the tools that people use: `make test-interop`, and what of its mechanism costs nothing.

The tables of tools and of what each reads are in `tests/interop`, the page made from them is docs/interop.md.
"""

import re
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent / "interop"))
import environments
import measure
import numpy as np
from exports import METHODS, exported
from page import inserted
from rows import NAMES, OTHER, ROWS, SAME

from darkroom.families.table import FAMILIES
from darkroom.formats.table import FORMATS

DIFFUSERS = [name for name in environments.TOOLS if name.startswith("diffusers")]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """`models(kind, method)`, see `exported`."""
    done = {}

    def get(kind, method):
        if (kind, method) not in done:
            done[kind, method] = exported(kind, method, tmp_path_factory.mktemp(kind) / method)
        return done[kind, method]

    return get


def check(found) -> None:
    """Print what was found, and fail where it is not what the table says."""
    wrong = []
    for (row, kind), one in found.items():
        print(
            f"{row.tool}, {row.form}, {row.method}, {kind}: {one.outcome} {one.difference:.4f} {one.message[:150]}"
        )
        if one.outcome != row.outcome:
            wrong.append(f"{row.tool}: {row.form}, {row.method}, {kind}: {one}, and not {row.outcome}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.interop
@pytest.mark.parametrize("tool", DIFFUSERS)
def test_diffusers_of_two_years_read_each_form_as_the_table_says(models, tmp_path, tool):
    check(measure.in_diffusers(tool, [row for row in ROWS if row.tool == tool], models, tmp_path))


def test_the_page_is_made_from_the_table():
    page = (environments.ROOT / "docs/interop.md").read_text(encoding="utf-8")
    assert inserted(page) == page, "run: python tests/interop/page.py"


def test_every_format_and_kind_of_adapters_has_a_row_and_every_package_one_version():
    assert {row.form for row in ROWS} == {"folder", *(set(FORMATS) | {"diffusers"})}
    assert {row.method for row in ROWS} == {"merged", *METHODS}
    assert len(NAMES) == len(FAMILIES) + 1  # unet-sd holds two
    pins = [pin for tool in environments.TOOLS.values() for pin in tool.pins]
    assert all(re.fullmatch(r"[a-z-]+==[\d.]+", pin) for pin in pins)


def test_a_tool_that_reads_nothing_of_a_file_is_told_from_one_that_draws_the_same():
    base, tuned = np.zeros((2, 2, 3)), np.full((2, 2, 3), 0.5)
    assert measure.compared(tuned + 1e-5, tuned, base, 0.01).outcome == SAME
    assert measure.compared(base, tuned, base, 0.01).outcome == OTHER
    with pytest.raises(AssertionError):  # of adapters that change nothing nothing is learnt
        measure.compared(base, base, base, 0.01)
