"""A page of all scores: how they are spread, where the thresholds lie, and the pictures nearest to these."""

from pathlib import Path

from darkroom.audit.pages import render
from darkroom.audit.scored import Scored
from darkroom.report.scores import score_card
from darkroom.store import replacing


def write_overview(scored: Scored, out: Path) -> list[str]:
    """Write the page, and return a line a column: how many pictures have a value, and what its criterion drops.

    Each criterion is judged by itself, whatever the others say; the filter's funnel has them together.
    """
    columns = list(scored.columns().values())
    pictures = scored.read(columns)
    cards = [score_card(scored, pictures, column) for column in columns]
    page = render("overview.html", dataset=scored.name, pictures=pictures.height, cards=cards)
    with replacing(out) as beside:
        beside.write_text(page, encoding="utf-8")
    lines = []
    for card in cards:
        lines.append(f"{card['name']}: {card['known']:,} of {pictures.height:,} pictures have a value")
        lines += [
            f"  {of['words']}: {of['num_dropped']:,} dropped, {of['num_kept']:,} kept"
            for of in card["criteria"]
        ]
    return lines
