"""Pages of the docs, a part of which is generated."""


def insert_between(page: str, begin: str, end: str, text: str) -> str:
    """`page` with `text` between the lines `begin` and `end`.

    Raises:
        ValueError: one of them is missing.
    """
    before, first, rest = page.partition(begin)
    _, last, after = rest.partition(end)
    if not first or not last:
        raise ValueError(f"the page lacks a line {begin if not first else end}")
    return f"{before}{begin}\n\n{text}\n{end}{after}"
