"""Settings by dotted key, and where two of them differ."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

_NUM_NAMED = 3  # keys that a sentence names


class _Nothing:
    """What stands where a key does not."""

    def __repr__(self) -> str:
        return "nothing"


_NOTHING = _Nothing()


def differences(recorded: Any, now: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(key, recorded, now) of every setting that differs, lists as a whole."""
    if isinstance(recorded, dict) and isinstance(now, dict):
        for name in {**recorded, **now}:
            inner = f"{key}.{name}" if key else str(name)
            yield from differences(recorded.get(name, _NOTHING), now.get(name, _NOTHING), inner)
    elif recorded != now:
        yield key, recorded, now


def dotted(values: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """Nested settings as text, by dotted key; what is no text is JSON."""
    found: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= dotted(value, f"{above}{key}.")
        else:
            found[f"{above}{key}"] = value if isinstance(value, str) else json.dumps(value)
    return found


def told(recorded: Any, now: Any) -> str:
    """The first of these differences in words: `train.seed was 0 and is 1`."""
    found = list(differences(recorded, now))
    words = [
        f"{key} was {_short(before)} and is {_short(after)}" for key, before, after in found[:_NUM_NAMED]
    ]
    more = f", and {len(found) - _NUM_NAMED} more" if len(found) > _NUM_NAMED else ""
    return ", ".join(words) + more


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
