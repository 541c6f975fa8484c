"""Options that hold one of several sections, one for each kind of a table."""

from collections.abc import Mapping
from typing import Annotated, Any, Union

from pydantic import Discriminator, Field, Tag


def one_of(sections: Mapping[str, type], key: str = "kind", default: str | None = None) -> Any:
    """The type of such an option.

    Args:
        sections: what `key` says -> the section.
        key: the option that tells the sections apart, a literal in each.
        default: what it is where it is left out; None: it has to be there.
    """
    if len(sections) == 1:
        return next(iter(sections.values()))
    if default is None:
        return Annotated[Union[tuple(sections.values())], Field(discriminator=key)]  # noqa: UP007

    def told(value: Any) -> str:
        return str(value.get(key, default) if isinstance(value, dict) else getattr(value, key, default))

    return Annotated[
        Union[tuple(Annotated[section, Tag(name)] for name, section in sections.items())],  # noqa: UP007
        Discriminator(
            told,
            custom_error_type=f"unknown_{key}",
            custom_error_message=f"{key} must be one of {', '.join(sections)}",
        ),
    ]
