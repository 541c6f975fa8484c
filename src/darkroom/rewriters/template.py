"""Prompts with places for captions, e.g. `Shorten this to ten words: {long}`.

What is put there is data: it is not looked through for places again, and signs in it mean nothing.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_BRACES = {"{{": "{", "}}": "}"}


@dataclass(frozen=True)
class Template:
    """A prompt in pieces: texts as they stand, and names of captions.

    pieces: (text, or the name of a caption, and whether it is one).
    """

    pieces: tuple[tuple[str, bool], ...]

    @classmethod
    def parse(cls, prompt: str) -> Self:
        """Read a prompt; `{{` and `}}` in it are braces.

        Raises:
            ValueError: a brace stands alone, or nothing in it is a place for a caption.
        """
        pieces: list[tuple[str, bool]] = []
        end = 0
        for found in _PIECE.finditer(prompt):
            pieces.append((prompt[end : found.start()], False))
            sign, end = found[0], found.end()
            if sign in ("{", "}"):
                raise ValueError(f"{sign!r} stands alone; write {2 * sign} for the sign itself")
            is_place = sign not in _BRACES
            pieces.append((found[1].strip() if is_place else _BRACES[sign], is_place))
        pieces.append((prompt[end:], False))
        template = cls(tuple(piece for piece in pieces if piece[0] or piece[1]))
        if not template.names:
            raise ValueError("has no place for a caption, such as {long}, {short} or {original}")
        return template

    @property
    def names(self) -> tuple[str, ...]:
        """The captions that it has places for, each once."""
        return tuple(dict.fromkeys(piece for piece, is_place in self.pieces if is_place))

    def filled(self, texts: Mapping[str, str]) -> str:
        """The prompt with these texts in the places of their names."""
        return "".join(texts[piece] if is_place else piece for piece, is_place in self.pieces)
