# Helper functions only: which parts stay as they are though a scorer of the whole dataset has scored again.
import functools

from darkroom.scorers.table import SCORERS
from darkroom.stages import scorer_digest
from driver import settled


def states_of(dataset):
    """Of each part of the list, what its rows and pictures are."""
    return [sha256_json([state.rows, state.pictures]) for state in STATES[dataset]]


def parts_made_with(dataset):
    """What else decides what the parts are, and what scorers of the whole dataset say of them."""
    project = GRAPH.datasets[dataset]
    scorers = {
        name: scorer_digest(project, name)
        for name in project.dataset.scorers.listed()
        if SCORERS[name].reads == "dataset"
    }
    return sha256_json(
        [settings_digest(project, "download"), project.dataset.rows_per_part, scorers]
    )


@functools.cache
def num_settled(dataset):
    """How many parts of the list, from its first, nothing has changed since they were filtered."""
    if workflow.dag_settings.forcerun or workflow.dag_settings.forceall:
        return 0
    folder = Path(DATASET.format(dataset=dataset))
    parts = [part for part in PARTS[dataset] if not round_of(part)]
    files = [
        (folder / f"download/{part}.parquet", folder / f"filter/{part}.parquet")
        for part in parts
    ]
    return settled.num_settled(
        dataset, parts_made_with(dataset), states_of(dataset), files
    )


def is_settled(dataset, part):
    """Whether nothing has changed since a part was filtered that decides what was kept of it."""
    return not round_of(part) and part_index(part) < num_settled(dataset)


def note_what_is_made():
    """Of the datasets of which this run had all parts."""
    for job in workflow.dag.jobs:
        if job.rule.name == "download_manifest":
            dataset = job.wildcards.dataset
            settled.note(dataset, parts_made_with(dataset), states_of(dataset))
