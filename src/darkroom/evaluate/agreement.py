"""Whether a result that was made again, on another kind of CPU for instance, agrees with the published one."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

# What may differ between two results of one protocol: the models' bytes and what these were computed in.
_FREE = ("models", "computed_in")
_PARTS = ("trained", "difference")


@dataclass(frozen=True)
class Score:
    """A score with its 95 % interval; both ends are None where none was computed."""

    value: float
    low: float | None
    high: float | None

    def holds(self, value: float) -> bool:
        """Whether a value lies in the interval."""
        return self.low is not None and self.high is not None and self.low <= value <= self.high


@dataclass(frozen=True)
class Agreement:
    """One score, here and as published. `agrees` is None where no interval was published."""

    name: str
    here: Score
    published: Score
    agrees: bool | None


def agreements(here: Mapping[str, Any], published: Mapping[str, Any]) -> list[Agreement]:
    """Compare the trained model's scores, and their differences to the untrained one's, of two metrics.json.

    Two scores agree if one of them lies in the other's interval. An interval over few prompts, all of which
    succeed, has no width; the other one's then decides.

    Raises:
        ValueError: they were measured by unlike protocols, or not by the same metrics; names which.
    """
    _refuse_other_protocol(here["protocol"], published["protocol"])
    mine, theirs = dict(_scores(here)), dict(_scores(published))
    for name in sorted(mine.keys() ^ theirs.keys()):
        raise ValueError(f"{name} is {'not published' if name in mine else 'not measured here'}")
    found = []
    for name, score in mine.items():
        other = theirs[name]
        agrees = None if other.low is None else other.holds(score.value) or score.holds(other.value)
        found.append(Agreement(name, score, other, agrees))
    return found


def agreement_lines(found: list[Agreement]) -> list[str]:
    """A line a score, for a terminal."""
    width = max((len(row.name) for row in found), default=0)
    verdict = {True: "agrees", False: "DIFFERS", None: "no interval was published"}
    lines = []
    for row in found:
        interval = f" ({row.published.low:.4f} to {row.published.high:.4f})" if row.agrees is not None else ""
        lines.append(
            f"{row.name:<{width}}  {row.here.value:>9.4f}  published {row.published.value:>9.4f}{interval}"
            f"  {verdict[row.agrees]}"
        )
    return lines


def _scores(body: Mapping[str, Any]) -> Iterator[tuple[str, Score]]:
    for part in _PARTS:
        yield from _leaves(body.get(part, {}), part)


def _leaves(body: Mapping[str, Any], name: str) -> Iterator[tuple[str, Score]]:
    for key, value in body.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{name}.{key}")
        elif not _is_end(key, body):
            yield f"{name}.{key}", Score(value, body.get(f"{key}_low"), body.get(f"{key}_high"))


def _is_end(key: str, body: Mapping[str, Any]) -> bool:
    """Whether this is an end of another score's interval."""
    return any(key.endswith(end) and key.removesuffix(end) in body for end in ("_low", "_high"))


def _refuse_other_protocol(here: Mapping[str, Any], published: Mapping[str, Any]) -> None:
    for key in sorted({*here, *published} - {*_FREE}):
        if here.get(key) != published.get(key):
            name, mine, theirs = _first_other(f"protocol.{key}", here.get(key), published.get(key))
            raise ValueError(
                f"{name} is {mine!r} here and {theirs!r} published; scores of unlike protocols do not compare"
            )


def _first_other(name: str, here: Any, published: Any) -> tuple[str, Any, Any]:
    """The first of what lies inside two unlike values that is unlike: its dotted name, and both."""
    if isinstance(here, Mapping) and isinstance(published, Mapping):
        for key in sorted({*here, *published}):
            if here.get(key) != published.get(key):
                return _first_other(f"{name}.{key}", here.get(key), published.get(key))
    return name, here, published
