"""Whether what a dataset rewrites is there."""

from collections.abc import Sequence

from darkroom.config.names import nearest
from darkroom.rewriters.base import RewriterSection


def check_rewrite(section: RewriterSection, known: Sequence[str]) -> None:
    """Refuse a section that does not go together with the captions that pictures have before.

    Raises:
        ValueError: names the key and what would be right.
    """
    if not section.captions:
        raise ValueError(
            "rewrite.captions: is missing; name a caption, as in brief: {prompt: 'Shorten: {long}'}"
        )
    for name, template in section.templates().items():
        if name in known:
            raise ValueError(
                f"rewrite.captions.{name}: pictures have a caption of this name already; write another name"
            )
        for named in template.names:
            if named not in known:
                near = nearest(named, list(known), always=True)
                raise ValueError(f"rewrite.captions.{name}.prompt: pictures have no caption {named!r}{near}")
