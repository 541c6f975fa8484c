"""Parts: the fixed cut of a dataset into units of work, and the parts of rows that are fetched again."""

import math
import re

_OF_RETRIES = re.compile(r"part-r(\d{2,})-\d{5,}")


def num_parts(num_rows: int, rows_per_part: int) -> int:
    """How many parts `num_rows` rows make (at least one)."""
    return max(1, math.ceil(num_rows / rows_per_part))


def part_name(index: int) -> str:
    """`part-00000` for 0; from 100,000 on the number has more digits."""
    return f"part-{index:05d}"


def part_index(name: str) -> int:
    """The inverse of `part_name`."""
    return int(name.removeprefix("part-"))


def retry_name(round_number: int, index: int) -> str:
    """`part-r01-00000` for the first part of the first round of retries; sorted, parts of the list come first."""
    return f"part-r{round_number:02d}-{index:05d}"


def round_of(name: str) -> int:
    """The round of retries that a part belongs to; 0 for a part of the list."""
    found = _OF_RETRIES.fullmatch(name)
    return int(found[1]) if found else 0
