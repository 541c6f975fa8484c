"""Reading README.md and docs/: their blocks, commands and tables."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
INDEXED = sorted([*DOCS.glob("*.md"), *DOCS.glob("experiments/*.md")])  # docs/recipes has an index of its own
PAGES = [path for path in (ROOT / "README.md", *INDEXED) if path.exists()]


def blocks(language: str, page: Path | None = None) -> Iterator[list[str]]:
    """The lines of every fenced block of a language, of one page or of all."""
    for path in PAGES if page is None else [page]:
        text = path.read_text(encoding="utf-8")
        for found in re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            yield found.splitlines()


def commands(page: Path | None = None) -> list[list[str]]:
    """The commands of every console block."""
    return [[line.removeprefix("$ ") for line in block] for block in blocks("console", page)]


def rows_after(text: str, header: str) -> list[list[str]]:
    """The cells of the rows of the table that has this header line."""
    table = text.split(header + "\n", 1)[1].split("\n\n", 1)[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[1:]]


def documented_columns() -> dict[str, list[str]]:
    """File -> columns, from every table that follows a `columns:` comment."""
    pattern = re.compile(r"^<!-- columns: (\S+) -->\n((?:\|.*\n)+)", re.MULTILINE)
    found = {}
    for page in PAGES:
        for file, table in pattern.findall(page.read_text(encoding="utf-8")):
            firsts = [line.split("|")[1] for line in table.splitlines()[2:]]
            found[file] = [name for cell in firsts for name in re.findall(r"`(\w+)`", cell)]
    return found
