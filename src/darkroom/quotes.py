"""What a text quotes: words that a picture should show as they are written."""

import re

# Pairs of quotation marks; a straight single one may be an apostrophe, which stands inside of or behind a word.
_QUOTED = re.compile(
    r"\"([^\"\n]+)\"|\u201c([^\u201d\n]+)\u201d|\u00ab([^\u00bb\n]+)\u00bb|\u2018([^\u2019\n]+)\u2019(?!\w)"
    r"|(?<!\w)'([^'\n]+)'(?!\w)"
)


def quoted_texts(text: str) -> list[str]:
    """What stands between quotation marks, in order."""
    return ["".join(groups) for groups in _QUOTED.findall(text)]
