"""Filter: criteria applied late to what is known of every row, and every dropped row accounted for."""

from darkroom.filter.criteria import check_criteria
from darkroom.filter.funnel import funnel, refuse_empty, write_funnel
from darkroom.filter.selection import select_part

# Raised by whoever changes what the stage writes: results of the version before are then made again.
VERSION = 2

__all__ = ["VERSION", "check_criteria", "funnel", "refuse_empty", "select_part", "write_funnel"]
