"""JSON that others wrote: whatever it holds, what is read of it can be stored, and a mistake is a ValueError."""

import json
import re
from typing import Any

# Half of a pair, which a JSON text may name and no text in UTF-8 can hold.
_ESCAPED = re.compile(r"\\u[dD][89a-fA-F]")
_LONE = re.compile("[\ud800-\udfff]")


def read_json(text: str | bytes) -> Any:
    """What a JSON text holds; surrogates without their other half become U+FFFD.

    Raises:
        ValueError: it is no JSON, or nested too deeply.
    """
    try:
        found = json.loads(text)
        if isinstance(text, bytes) or _ESCAPED.search(text):
            plain = json.dumps(found, ensure_ascii=False)
            found = json.loads(_LONE.sub("\ufffd", plain)) if _LONE.search(plain) else found
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return found
