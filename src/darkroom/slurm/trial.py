"""The last word on a request: `sbatch --test-only`, which answers as a submission would and submits nothing."""

import re
from collections.abc import Sequence
from dataclasses import replace

from darkroom.slurm.check import Finding
from darkroom.slurm.commands import try_out
from darkroom.slurm.profile import Request
from darkroom.slurm.refusals import Refusal, classify, reason

# What sbatch says of a request that no node could ever give, and also of one whose nodes are all out of service.
_NOT_AVAILABLE = "Requested node configuration is not available"
# What SLURM checks only where its administrator asks for it.
_ENFORCED = ("slurm_account: ", "qos: ")


def try_requests(requests: Sequence[Request], findings: Sequence[Finding]) -> list[Finding]:
    """The findings, with sbatch's own answer to each request that gets as far as sbatch.

    What sbatch takes though the database does not know it is no error; what it refuses is one.

    Raises:
        Unreachable: sbatch is not here or gives no answer.
    """
    answers: dict[tuple[str, ...], Finding | None] = {}
    found: list[Finding] = []
    for request in requests:
        own = [finding for finding in findings if finding.rule == request.rule]
        if request.asked is not None:
            if request.options not in answers:
                answers[request.options] = _ask_sbatch(request)
            own = _agree(own, answers[request.options], request.rule)
        found += own
    return found


def _ask_sbatch(request: Request) -> Finding | None:
    """Sbatch's refusal of a request; None where it takes it."""
    answer = try_out("sbatch", "--test-only", *request.options, "--wrap=true")
    if answer.code == 0:
        return None
    words = reason(re.sub("^allocation failure: ", "", answer.text, flags=re.MULTILINE))
    return Finding(request.rule, f"sbatch: {words}", classify(answer.text) is Refusal.PERMANENT)


def _agree(own: list[Finding], refused: Finding | None, rule: str) -> list[Finding]:
    if refused is None:
        return [
            replace(finding, fatal=finding.fatal and not finding.text.startswith(_ENFORCED))
            for finding in own
        ]
    is_out = any(not finding.fatal and "in service now" in finding.text for finding in own)
    is_fatal = refused.fatal and not (is_out and _NOT_AVAILABLE in refused.text)
    return [*own, replace(refused, rule=rule, fatal=is_fatal)]
