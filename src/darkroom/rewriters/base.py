"""What a rewriter is: a captioner whose requests hold other captions of the picture, and no picture.

Its file is read with the configuration, by jobs that need no torch as well: import what is heavy inside functions.
"""

from typing import ClassVar, Self

from pydantic import model_validator

from darkroom.captioners.base import CaptionerSection, Kind, SectionT, Texts
from darkroom.rewriters.template import Template


class RewriterSection(CaptionerSection):
    """The `rewrite` section of a dataset: what every rewriter has. Each kind's own adds `kind` and more."""

    key: ClassVar[str] = "rewrite"

    @model_validator(mode="after")
    def _prompts_have_places(self) -> Self:
        self.templates()
        return self

    def templates(self) -> dict[str, Template]:
        """Name -> the prompt, sorted by name.

        Raises:
            ValueError: a prompt is none; names it.
        """
        found = {}
        for name, request in self.asked().items():
            try:
                found[name] = Template.parse(request.prompt)
            except ValueError as error:
                raise ValueError(f"captions.{name}.prompt: {error}") from None
        return found


class Rewriter(Kind[SectionT, Texts]):
    """A kind of rewriter, as `rewrite.kind` says."""
