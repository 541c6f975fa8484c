"""Recaption: kept pictures get a long and a short caption from a LLaVA-family captioner."""

from typing import TYPE_CHECKING, Any

from darkroom.recaption.score import score_captions

if TYPE_CHECKING:
    from darkroom.recaption.stage import recaption_part

__all__ = ["recaption_part", "score_captions"]


def __getattr__(name: str) -> Any:
    # torch and transformers are imported only by those who caption.
    if name == "recaption_part":
        from darkroom.recaption.stage import recaption_part

        return recaption_part
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
