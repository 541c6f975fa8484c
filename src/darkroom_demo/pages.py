"""The page on which a person browses the demo world."""

from html import escape
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlencode

from darkroom_demo.faults import BY_NAME

if TYPE_CHECKING:
    from darkroom_demo.layout import Row
    from darkroom_demo.world import DemoWorld

_ROWS_PER_PAGE = 60
_NOT_EMBEDDED = frozenset({"slow_drip", "stall", "too_many_bytes", "decompression_bomb", "redirect_loop"})
_STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em; color: #222 }
nav a { margin-right: .8em; white-space: nowrap }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(15em, 1fr)); gap: 1em; margin: 1em 0 }
figure { margin: 0; padding: .6em; border: 1px solid #ddd; border-radius: 4px; overflow-wrap: anywhere }
img { max-width: 100%; max-height: 12em; display: block; margin-bottom: .4em; background: #eee }
small { color: #666 } b { color: #a30 }
"""


def index_page(world: "DemoWorld", query: str = "") -> bytes:
    """The list with its pictures, a page at a time: `page=N`, `only=KIND-OR-FAULT` in the query."""
    asked = {key: values[0] for key, values in parse_qs(query).items()}
    only = asked.get("only", "")
    rows = [row for row in world.rows if not only or only in (row.kind, row.fault)]
    num_pages = max(1, -(-len(rows) // _ROWS_PER_PAGE))
    page = min(max(int(asked["page"]) if asked.get("page", "").isdecimal() else 1, 1), num_pages)
    shown = rows[(page - 1) * _ROWS_PER_PAGE : page * _ROWS_PER_PAGE]
    steps = [(1, "first"), (page - 1, "previous"), (page + 1, "next"), (num_pages, "last")]
    turning = " ".join(
        f'<a href="/?{escape(urlencode({"only": only, "page": number}))}">{name}</a>'
        for number, name in steps
        if 1 <= number <= num_pages
    )
    kinds = " ".join(
        f'<a href="/?{escape(urlencode({"only": name}))}">{escape(name)}&nbsp;({number})</a>'
        for name, number in world.counts.items()
    )
    title = f"The demo world: {len(rows)} of {len(world)} rows, page {page} of {num_pages}"
    figures = "\n".join(_figure(world, row) for row in shown)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1>"
        f'<nav><a href="/">all</a> {kinds}</nav><main>\n{figures}\n</main><nav>{turning}</nav></body></html>\n'
    ).encode()


def _figure(world: "DemoWorld", row: "Row") -> str:
    record = world.list_record(row.row)
    path = row.path
    fault = f"<br><b>{escape(row.fault)}</b>: {escape(BY_NAME[row.fault].what)}" if row.fault else ""
    expected = row.expected_status if row.expected_status != "ok" else row.expected_filter
    image = ""
    if path and row.fault not in _NOT_EMBEDDED:
        image = f'<img src="{escape(path)}" loading="lazy" alt="row {row.row}">'
    link = f'<a href="{escape(path)}">{escape(path)}</a>' if path else escape(row.url)
    return (
        f"<figure>{image}{escape(record['caption']) or '<i>no alt-text</i>'}{fault}"
        f"<br><small>row {row.row}, expected: {expected}<br>{link}</small></figure>"
    )
