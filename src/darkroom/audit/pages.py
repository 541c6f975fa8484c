"""Filling in the templates of the audit's pages, and the numbers on them."""

from typing import Any

from darkroom.report import pages


def render(template: str, **values: Any) -> str:
    """A page; everything that is not marked as safe is escaped."""
    filters = {"share": share, "whole": whole, "short": pages.short}
    return pages.render("darkroom.audit", template, values, filters)


def share(value: float) -> str:
    """A share in percent."""
    return f"{100 * value:.1f} %"


def whole(value: float) -> str:
    """A whole number with thin spaces between thousands."""
    return pages.number(value)
