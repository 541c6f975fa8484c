"""The table of metrics: `measure` names those of a run. A new one is a file beside it and a place in it.

A metric's `SPEC` says its options, what it looks at, how it measures and what reports call it; configuration,
rules, evaluation, report and README follow from the table.
"""

from collections.abc import Iterable, Sequence

from darkroom.benchmarks.base import Record
from darkroom.kinds import table
from darkroom.metrics import (
    aesthetic,
    clip_score,
    cmmd,
    fd_dinov2,
    fid,
    fid_infinity,
    frechet,
    geneval,
    hps_v2_1,
    image_reward,
    kernel,
    kid,
    manifold,
    mifid,
    nearest,
    pickscore,
    text_rendering,
    vlm_judge,
)

METRICS = table(
    "darkroom.metrics",
    geneval.SPEC,
    clip_score.SPEC,
    text_rendering.SPEC,
    vlm_judge.SPEC,
    hps_v2_1.SPEC,
    image_reward.SPEC,
    pickscore.SPEC,
    aesthetic.SPEC,
    fid.SPEC,
    fid_infinity.SPEC,
    mifid.SPEC,
    kid.SPEC,
    fd_dinov2.SPEC,
    frechet.SPEC,
    kernel.SPEC,
    cmmd.SPEC,
    *manifold.ON_CLIP,
    *manifold.ON_FEATURES,
    nearest.SPEC,
)
"""By name, in the order of reports."""


def split_by_applicability(
    names: Iterable[str], records: Sequence[Record]
) -> tuple[list[str], dict[str, str]]:
    """The metrics of these that say something of the prompts, and why the others do not."""
    reasons = {name: METRICS[name].silent_on(records) for name in names}
    return [n for n, reason in reasons.items() if not reason], {n: r for n, r in reasons.items() if r}
