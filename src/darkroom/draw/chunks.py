"""How the prompts are cut: into groups that one call of the model draws, and those into chunks, which are jobs.

A group is as many whole prompts as fit a forward pass. A picture's last bits depend on what shares its pass, so
groups do not depend on the chunks: chunks of any size hold the same pictures.
"""

from collections.abc import Iterator

from darkroom.config.run import Draw

_DIGITS = 5


def group_size(settings: Draw) -> int:
    """How many prompts are drawn at a time."""
    return max(1, settings.batch_size // settings.num_pictures_per_prompt)


def chunk_size(settings: Draw) -> int:
    """Prompts of a chunk: `prompts_per_chunk`, as whole groups, at least one."""
    size = group_size(settings)
    return max(1, settings.prompts_per_chunk // size) * size


def chunk_names(settings: Draw, num_prompts: int) -> list[str]:
    """`chunk-00000` and so on: as many as it takes."""
    return [f"chunk-{i:0{_DIGITS}d}" for i in range(-(-num_prompts // chunk_size(settings)))]


def groups_of(settings: Draw, num_prompts: int, chunk: str) -> Iterator[range]:
    """The prompts of a chunk, by group.

    Raises:
        ValueError: there is no such chunk.
    """
    names = chunk_names(settings, num_prompts)
    if chunk not in names:
        raise ValueError(f"no {chunk}: {num_prompts} prompts make {len(names)} chunks")
    step, size = chunk_size(settings), group_size(settings)
    start = names.index(chunk) * step
    end = min(start + step, num_prompts)
    for first in range(start, end, size):
        yield range(first, min(first + size, end))
