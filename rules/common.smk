# Helper functions only: what the run is, where its files lie, which parts it has.
import json
import os
import subprocess
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

from darkroom.config import ConfigError, load_project
from darkroom.config.paths import local_path
from darkroom.folders import FolderSource, state_of_folders
from darkroom.source import count_rows
from darkroom.stages import STAGES, manifest_path, stage_settings, upstream_paths
from darkroom.store import num_parts, part_name


def load_run():
    """The run that the configuration names, or an error that names the wrong key."""
    unknown = sorted(set(config) - {"run"})
    if unknown:
        raise WorkflowError(
            f"--config {unknown[0]}: unknown key; only run=NAME can be given"
        )
    try:
        return load_project(str(config["run"]))
    except ConfigError as error:
        raise WorkflowError(str(error)) from None


PROJECT = load_run()
DATASET = f"results/datasets/{PROJECT.run.dataset}"
IS_DEMO = PROJECT.dataset.source.kind == "demo"
RUN = f"results/runs/{PROJECT.name}"
CACHE = f"results/runs/{PROJECT.cache_owner}"
LOGS = f"logs/runs/{PROJECT.name}"
DATASET_LOGS = f"logs/datasets/{PROJECT.run.dataset}"
# The manifest of the phase that the training goes on from, if there is one.
INITIAL = [
    path for name, path in upstream_paths(PROJECT, "train").items() if name == "initial"
]
CACHE_LOGS = f"logs/runs/{PROJECT.cache_owner}"


def list_parts():
    """The names of the dataset's parts: fixed by its configuration, never by the machine."""
    try:
        num_rows = count_rows(PROJECT.dataset.source)
    except (OSError, ValueError) as error:
        raise WorkflowError(str(error)) from None
    return [
        part_name(i) for i in range(num_parts(num_rows, PROJECT.dataset.rows_per_part))
    ]


PARTS = list_parts()


def source_state():
    """What tells that the files of a source of folders changed; other sources are their configuration."""
    source = PROJECT.dataset.source
    return state_of_folders(source) if isinstance(source, FolderSource) else None


def settings(section):
    """A configuration section as plain values, for `params`; None for one that is switched off."""
    return section and section.model_dump(mode="json")


def component(name):
    """A component's settings, for `params`."""
    return settings(PROJECT.component(name))


def captioner():
    """The name of the dataset's captioner; None where pictures are not captioned again."""
    return PROJECT.dataset.recaption and PROJECT.dataset.recaption.captioner


def component_files(name):
    """The files of a component that lies on this machine: changing one reruns what was made with it.

    None, where the configuration names none.
    """
    if name is None:
        return []
    try:
        folder = local_path(PROJECT.component(name).path)
    except ValueError as error:
        raise WorkflowError(f"config/components.yaml: {name}: path: {error}") from None
    return (
        sorted(str(p) for p in folder.rglob("*") if p.is_file())
        if folder.is_dir()
        else []
    )


def text_encoders():
    """The settings of the run's text encoders, in order."""
    return [component(encoder.name) for encoder in PROJECT.run.cache.encoders]


def text_encoder_files():
    """Their files on this machine."""
    names = [encoder.name for encoder in PROJECT.run.cache.encoders]
    return [path for name in names for path in component_files(name)]


def class_tables():
    """The download tables, which tell DreamBooth's class pictures, where the training weighs them apart."""
    wanted = PROJECT.run.train.prior_weight is not None
    return expand(f"{DATASET}/download/{{part}}.parquet", part=PARTS) if wanted else []


def refuse_what_is_not_here(resources):
    """Refuse a training that asks for a package or a GPU that is not here.

    Where a profile names GPUs, the GPU is another machine's, and the training refuses itself.
    """
    from darkroom.config.optional import check_optimizer

    elsewhere = {"gres", "gpu", "gpus_per_task"} & set(resources.keys())
    try:
        check_optimizer(PROJECT.run.train.optimizer)
        if PROJECT.run.model.attention != "sdpa" and not elsewhere:
            from darkroom.config.families import check_attention
            from darkroom.train.distributed import Ranks, find_device

            check_attention(PROJECT.run.model.attention, find_device(Ranks()).type)
    except ValueError as error:
        raise WorkflowError(f"config/runs/{PROJECT.name}.yaml: {error}") from None


def online_download():
    """The manifest of the download, where training encodes pictures itself."""
    return [f"{DATASET}/download/manifest.json"] if PROJECT.run.cache.online else []


def online_tars():
    """The tars that it reads them from."""
    wanted = PROJECT.run.cache.online
    return expand(f"{DATASET}/download/{{part}}.tar", part=PARTS) if wanted else []


def launch(wildcards, resources, threads):
    """The prefix that starts one process a rank: empty on one process, else the geometry of a profile.

    The allocation's own numbers do not reach a rule's shell, so srun gets all of them again.
    """
    refuse_what_is_not_here(resources)
    if not resources.get("mpi"):
        return ""
    nodes, per_node = resources.get("nodes", 1), resources.get("tasks_per_node")
    tasks = nodes * per_node if per_node else resources.get("tasks", 1)
    if resources.mpi == "torchrun" and nodes == 1:
        return (
            f"torchrun --standalone --nproc-per-node={tasks}"
            # Without the dashes torchrun takes the training's own --log for one of its options.
            " --signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 --no-python --"
        )
    if resources.mpi == "torchrun":
        raise WorkflowError(
            "mpi=torchrun starts ranks on one machine; for nodes use mpi=srun"
        )
    if tasks % nodes:
        raise WorkflowError(
            f"{tasks} tasks do not spread evenly over {nodes} nodes; set tasks to a multiple of nodes"
        )
    return (
        f"{resources.mpi} --nodes={nodes} --ntasks={tasks} --ntasks-per-node={tasks // nodes}"
        f" --cpus-per-task={resources.get('cpus_per_task', threads)} --kill-on-bad-exit=1"
    )


def begin_driving():
    """Hold this folder, and watch over the jobs where they run elsewhere."""
    sys.path.insert(0, str(Path(workflow.basedir, "workflow")))
    from driver import guard, lock

    globals()["DRIVER_LOCK"] = lock.hold(".snakemake/driver.lock")
    if not workflow.local_exec:
        guard.start(workflow)


def record_in_dvc():
    """Leave dvc.lock true, unless DVC is the caller and does so itself."""
    if "DVC_STAGE" not in os.environ:
        subprocess.run(
            [sys.executable, "workflow/scripts/dvc_commit.py", PROJECT.name], check=True
        )
