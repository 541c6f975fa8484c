"""Why `sbatch` refused a job: a limit or an outage that passes by itself, or what a person must change."""

import re
from enum import Enum


class Refusal(Enum):
    """Kinds of refusals."""

    OWN_LIMIT = "passes when jobs of one's own end"
    SHARED_LIMIT = "passes when jobs of anybody's end"
    OUTAGE = "passes when the controller answers, or has room, again"
    PERMANENT = "the same request is refused again"


# SLURM names the limit in a line of its own before the error, which is the same for all of them; a limit of an
# account's or a QOS's whole group has Grp in its name.
_LIMIT = re.compile(r"\w*(?:Max|Grp)Sub(?:mit)?Jobs?\w*")
_POLICY = "Job violates accounting/QOS policy"
_REASON = re.compile(r"\b(?:QOS|Assoc|Max)[A-Za-z]*(?:Max|Grp|Min|Per|Limit)[A-Za-z]*")
_OUTAGE = re.compile(
    "temporarily un(?:able|available)|Unable to contact|Socket timed out|standby mode|"
    "Connection (?:refused|reset|timed out)|Zero Bytes were transmitted|Communication connection failure|"
    "Transport endpoint is not connected|Insane message length|Message (?:send|receive) failure|"
    "Unexpected message received|Cannot allocate memory|Too many open files|too many pending RPCs",
    re.IGNORECASE,
)


def classify(text: str) -> Refusal:
    """What kind of refusal sbatch's words tell of."""
    if limit := _LIMIT.search(text):
        return Refusal.SHARED_LIMIT if "Grp" in limit[0] or "Account" in limit[0] else Refusal.OWN_LIMIT
    # Old versions leave the name of the limit out.
    if _POLICY in text and not _REASON.search(text):
        return Refusal.OWN_LIMIT
    return Refusal.OUTAGE if _OUTAGE.search(text) else Refusal.PERMANENT


def reason(text: str) -> str:
    """Sbatch's own words in one line: the name of a limit where there is one, then the last error."""
    lines = [re.sub(r"^sbatch: (?:error: )?", "", line.strip()) for line in text.splitlines()]
    lines = [line.removeprefix("Batch job submission failed: ") for line in lines if line]
    return "; ".join(dict.fromkeys([*lines[:1], *lines[-1:]])) or "no reason given"
