"""Whether the captions that a training shows are those of its datasets."""

from collections.abc import Iterator, Mapping

from darkroom.config.dataset import Dataset
from darkroom.config.names import nearest
from darkroom.config.run import Run


def caption_problems(run: Run, datasets: Mapping[str, Dataset]) -> Iterator[tuple[str, str]]:
    """(key, what is wrong) of captions that are shown and not there, and of tags that are never shown."""
    yield from _choice_problems(run, datasets)
    yield from _tag_problems(run, datasets)


def _choice_problems(run: Run, datasets: Mapping[str, Dataset]) -> Iterator[tuple[str, str]]:
    key, choice = "train.caption_choice", run.train.caption_choice
    if choice is None and len({dataset.caption_names for dataset in datasets.values()}) > 1:
        told = "; ".join(f"{name}: {', '.join(of.caption_names)}" for name, of in datasets.items())
        yield key, f"{key}: is missing, and the datasets have other captions each ({told})"
    for name, dataset in datasets.items():
        for caption in choice or ():
            if caption not in dataset.caption_names:
                near = nearest(caption, list(dataset.caption_names), always=True)
                yield key, f"{key}.{caption}: the dataset {name} has no caption of this name{near}"


def _tag_problems(run: Run, datasets: Mapping[str, Dataset]) -> Iterator[tuple[str, str]]:
    key = "train.tags.captions"
    known = [name for dataset in datasets.values() for name in dataset.caption_names]
    for caption in run.train.tags.captions if run.train.tags is not None else ():
        if caption not in known:
            yield (
                "train.tags",
                f"{key}: no caption {caption!r}{nearest(caption, sorted(set(known)), always=True)}",
            )
        elif run.train.caption_choice is not None and not run.train.caption_choice.get(caption):
            yield (
                "train.tags",
                f"{key}: {caption!r} is never shown; give it a share in train.caption_choice, or leave it out",
            )
