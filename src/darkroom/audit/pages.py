"""Filling in the templates of the audit's pages, and the numbers on them."""

from typing import Any

from darkroom.report import pages


def render(template: str, **values: Any) -> str:
    """A page; everything that is not marked as safe is escaped."""
    return pages.render("darkroom.audit", template, values, {"share": share, "whole": whole, "short": short})


def share(value: float) -> str:
    """A share in percent."""
    return f"{100 * value:.1f} %"


def whole(value: float) -> str:
    """A whole number with thin spaces between thousands."""
    return f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def short(value: float) -> str:
    """A score with four digits."""
    return f"{value:.4g}"
