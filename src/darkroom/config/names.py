"""What was meant by a name that nothing has."""

import difflib


def nearest(name: str, known: list[str], always: bool = False) -> str:
    """The end of a message: the name that was meant, or those there are; `always` these."""
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    meant = f"; did you mean {near[0]!r}?" if near else ""
    there = f"; known: {', '.join(known)}" if known and (always or not near) else ""
    return meant + there
