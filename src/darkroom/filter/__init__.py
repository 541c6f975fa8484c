"""Filter: scores stored once, thresholds applied late, every dropped row accounted for."""

from darkroom.filter.criteria import CRITERIA
from darkroom.filter.funnel import funnel, write_funnel
from darkroom.filter.scores import find_duplicates, score_part
from darkroom.filter.selection import select_part

__all__ = ["CRITERIA", "find_duplicates", "funnel", "score_part", "select_part", "write_funnel"]
