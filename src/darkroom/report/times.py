"""The digest of a page without the times that it tells, which no second run repeats.

The template puts what was measured between the comments BEGIN and END. What stands there must be numbers and the
template's own words, or the page is not darkroom's: nothing else can be written where no digest looks.
"""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from darkroom.store.found import read_bytes, shown
from darkroom.train.goodput import LABELS

BEGIN, END = "<!-- measured -->", "<!-- /measured -->"
# A page holds its pictures; this is some hundred times a large one.
_MAX_BYTES = 1 << 31
_MEASURED = re.compile(f"{re.escape(BEGIN)}(.*?){re.escape(END)}", re.DOTALL)
_TAG = re.compile(
    r"</?(?:b|div|p|span|table|tbody|td|th|thead|tr)"
    r'(?: class="[a-z ]*"| style="(?:display: block|width: [\d.e+-]+%)")*>'
)
_WORDS = re.compile(r"[^\W\d_]+|\S")
_SIGNS = {*".,;:%/+'\N{EN DASH}\N{MINUS SIGN}"}
_SENTENCES = (
    "Stage Jobs Time Memory of jobs all stages together No benchmarks were given"
    " Time is added up over a stage s jobs which may have run side by side"
    " memory is that of its largest job h min s MiB"
    " Of the training from its first start to its end with all that stopped it Training Share"
    " Of the steps alone without waiting TFLOP s are those of one device MFU is their share of what it can do"
    " Bucket x Steps Images"
    " Planned before the run with the interval of what was measured then and actual A plan is of jobs that"
    " wait for no core Actual Waited for a core Plan is off by Memory planned"
)
_VOCABULARY = {*_SIGNS, *_SENTENCES.split(), *" ".join(LABELS.values()).replace(",", "").split()}


def digest_without_times(path: str | Path, stages: Iterable[str]) -> str:
    """Hex SHA-256 of a page without its times, which tell of `stages`.

    Raises:
        ValueError: it is no page of darkroom's: something else stands where times should.
        OSError: it cannot be read.
    """
    known = {*_VOCABULARY, *stages}
    text = read_bytes(path, _MAX_BYTES).decode(errors="surrogateescape")
    for told in _MEASURED.findall(text):
        strange = set(_WORDS.findall(re.sub(r"\d+", "", _TAG.sub(" ", told)))) - known
        if strange:
            raise ValueError(
                f"{shown(path)}: has {min(strange)!r} among its times, which darkroom does not write"
            )
    kept = _MEASURED.sub(BEGIN + END, text)
    return hashlib.sha256(kept.encode(errors="surrogateescape")).hexdigest()
