"""A rewriter that needs no model: it says a request's last words, as often as it was asked."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import pytest

from darkroom.captioners.base import Ask, Generated, Texts, Wanted
from darkroom.rewriters.base import Rewriter, RewriterSection
from darkroom.rewriters.table import REWRITERS


class Said(RewriterSection):
    """Options of it."""

    kind: Literal["said"] = "said"


class _Loaded:
    provenance = dict.fromkeys(("model", "model_path", "library"), "said") | dict.fromkeys(
        ("model_sha256", "model_revision")
    )
    decoding: Mapping[str, Any] = {"method": "say"}
    counts: Mapping[str, Any] = {}

    @contextmanager
    def asking(self, texts: Texts) -> Iterator[Ask]:
        def ask(wanted: Wanted) -> dict[tuple[int, str], Generated]:
            words = {key: texts.prompt(*key).split()[-3:] for key in wanted}
            return {key: Generated(" ".join(said), len(said), "stop") for key, said in words.items()}

        yield ask


SPEC = Rewriter("said", Said, lambda section, components: _Loaded())


@contextmanager
def said() -> Iterator[None]:
    """For the block, a kind like others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(REWRITERS, "said", SPEC)
        yield
