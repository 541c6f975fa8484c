# Helper functions only: the pretrained components that jobs use, their settings and their files.
import functools

from snakemake.exceptions import WorkflowError

from darkroom.captioners.table import CAPTIONERS
from darkroom.components.base import named_components
from darkroom.components.check import check_component, origin
from darkroom.gates.table import GATES
from darkroom.rewriters.table import REWRITERS
from darkroom.settings.paths import local_path
from darkroom.stages import above, component_names

COMPONENTS = GRAPH.asked[0].components


def before_stage(project, target):
    """The stages that a stage of a run needs, directly or not."""
    needed = {name for of in members(project, target) for name in above(of, target)}
    return needed.union(*(before_stage(project, name) for name in needed))


def component(name):
    """A component's settings, for `params`; None for none."""
    return None if name is None else settings(COMPONENTS[name])


def captioner_components(project):
    """The components that the dataset's captioner and its gates name, with their settings."""
    dataset = project.dataset
    return {
        found.name: component(found.name)
        for section in (dataset.recaption, dataset.caption_gates)
        for found in named_components(section)
    }


def captioner_files(project):
    """The files of these on this machine."""
    return [
        path
        for name in sorted(captioner_components(project))
        for path in component_files(name)
    ]


def rewriter_components(project):
    """The same of what rewrites the dataset's captions."""
    names = component_names(project, "rewrite")
    return {name: component(name) for name in names}


def rewriter_files(project):
    """The files of these on this machine."""
    names = component_names(project, "rewrite")
    return [path for name in names for path in component_files(name)]


@functools.cache
def component_files(name):
    """The files of a component that lies on this machine: changing one reruns what was made with it.

    None, where the configuration names none.
    """
    if name is None:
        return []
    refuse_component(name)
    folder = local_path(COMPONENTS[name].path)
    return (
        sorted(str(p) for p in folder.rglob("*") if p.is_file())
        if folder.is_dir()
        else []
    )


@functools.cache
def refuse_component(name):
    """Refuse one that is not there or does not fit; what a job loads it checks itself."""
    try:
        local_path(COMPONENTS[name].path)
    except ValueError as error:
        told = f"{error}{origin(COMPONENTS[name].kind)}"
        raise WorkflowError(f"config/components.yaml: {name}: path: {told}") from None
    if workflow.is_main_process:
        try:
            check_component(COMPONENTS[name])
        except ValueError as error:
            raise WorkflowError(f"config/components.yaml: {name}: {error}") from None


def refuse_components(target):
    """Refuse what a stage and those before it cannot be made with.

    Where files exist, Snakemake takes an error of their rule's input function for a sign that they are nobody's
    output: they would count as up to date whatever changes. So a target asks before.
    """
    for project in GRAPH.runs.values():
        stages = sorted({*before_stage(project, target), target})
        for stage in stages:
            for name in component_names(project, stage):
                refuse_component(name)
        if "score" in stages:
            refuse_scorers(project)
        if "measure" in stages:
            refuse_metrics(project)
        for stage in {"recaption", "rewrite"}.intersection(stages):
            for of in members(project, stage):
                look_at_captioners(of.dataset_name, stage)


@functools.cache
def look_at_captioners(name, stage):
    """Say what writes a dataset's captions lacks here, as a variable of the environment: jobs may run where it is.

    Gates whose packages are not installed are refused.
    """
    dataset = GRAPH.datasets[name].dataset
    writer, gates, kinds = {
        "recaption": (dataset.recaption, dataset.caption_gates, CAPTIONERS),
        "rewrite": (dataset.rewrite, dataset.rewrite_gates, REWRITERS),
    }[stage]
    for section in (writer, *(gates.fallbacks if gates else ())):
        lacks = section and kinds[section.kind].missing(section)
        if lacks and workflow.is_main_process:
            logger.warning(f"config/datasets/{name}.yaml: {lacks}")
    for gate in gates.gates if gates else ():
        extra = GATES[gate.kind].extra
        if extra is not None and workflow.is_main_process:
            try:
                extra.require(gate.label)
            except ValueError as error:
                raise WorkflowError(
                    f"config/datasets/{name}.yaml: {gates.key}: {error}"
                ) from None


def text_encoders(project):
    """The settings of the run's text encoders, in order."""
    return [component(encoder.name) for encoder in project.run.cache.encoders]


def text_encoder_files(project):
    """Their files on this machine."""
    names = [encoder.name for encoder in project.run.cache.encoders]
    return [path for name in names for path in component_files(name)]
