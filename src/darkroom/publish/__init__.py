"""What is published: the runs that `config/config.yaml` lists, and the stages that DVC identifies for them.

DVC is not imported: `dvc.yaml` is text that is written here, and `dvc.lock` text that is read.
"""

from darkroom.publish.dvclock import PIPELINE
from darkroom.publish.listed import chain_of, phases, published_runs
from darkroom.publish.recorded import Difference, difference, published_outs, undeclared
from darkroom.publish.stages import pipeline_text, stage_entries, stage_entry, stage_name
from darkroom.publish.tracked import copy_tracked, tracked_path

__all__ = [
    "PIPELINE",
    "Difference",
    "chain_of",
    "copy_tracked",
    "difference",
    "phases",
    "pipeline_text",
    "published_outs",
    "published_runs",
    "stage_entries",
    "stage_entry",
    "stage_name",
    "tracked_path",
    "undeclared",
]
