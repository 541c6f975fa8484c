# Helper functions only: how a training starts, and what it is refused or told before.
import functools

from snakemake.exceptions import WorkflowError

from darkroom.config.fits import max_tokens_of
from darkroom.config.pretrained import planned_notes
from darkroom.pbs import request
from darkroom.trackers.table import TRACKERS


def refuse_what_is_not_here(project, resources):
    """Refuse a training that asks for a package or a GPU that is not here.

    Where a profile names GPUs, the GPU is another machine's, and the training refuses itself.
    """
    from darkroom.config.compiling import check_compiler
    from darkroom.config.optional import check_base_package, check_optimizer

    elsewhere = any(
        name in ("gres", "gpu", "gpus_per_task") or "--gpus" in str(value)
        for name, value in resources.items()
    )
    try:
        check_optimizer(project.run.train.optimizer)
        if not elsewhere:
            check_compiler(project.run.train.compile)
        for tracker in project.run.trackers:
            extra = TRACKERS[tracker.kind].extra
            if extra is not None:
                extra.require(f"trackers: kind {tracker.kind}")
        lora = project.run.model.lora
        base_dtype = "float32" if lora is None else lora.base_dtype
        check_base_package(base_dtype)
        on_gpu = project.run.model.attention != "sdpa" or base_dtype != "float32"
        if on_gpu and not elsewhere:
            from darkroom.config.families import check_attention, check_base_dtype
            from darkroom.train.distributed import Ranks, find_device

            device = find_device(Ranks()).type
            check_attention(project.run.model.attention, device)
            check_base_dtype(base_dtype, device)
    except ValueError as error:
        raise WorkflowError(f"config/runs/{project.name}.yaml: {error}") from None


def refuse_encoders_alone(project, tasks):
    """Refuse a training all of whose ranks would encode."""
    if not project.run.train.encoder_ranks:
        return
    from darkroom.train.distributed import Ranks, training_ranks

    try:
        training_ranks(Ranks(0, tasks), project.run.train.encoder_ranks)
    except ValueError as error:
        raise WorkflowError(
            f"config/runs/{project.name}.yaml: {error}. Ranks are the profile's, in set-resources: train_run"
        ) from None


def refuse_what_pbs_has_not(resources):
    """Refuse a training on several nodes under PBS, where a profile asks for that."""
    if resources.get("pbs") is None:
        return
    try:
        request.check(resources)
    except ValueError as error:
        raise WorkflowError(f"a training's {error}") from None


def tell_of_pretrained(project):
    """Say where a training goes another way than the weights that it goes on from."""
    prediction = project.run.train.objective.prediction
    pretrained = COMPONENTS.get(project.run.model.pretrained)
    vae = COMPONENTS[project.run.cache.vae]
    tokens = max_tokens_of(project.run.cache)
    for note in planned_notes(prediction, pretrained, vae, tokens):
        tell_once(f"config/runs/{project.name}.yaml: note: {note}")


@functools.cache
def tell_once(text):
    from driver.messages import say

    say(text)


def launch(wildcards, resources, threads):
    """The prefix that starts one process a rank: empty on one process, else the geometry of a profile.

    The allocation's own numbers do not reach a rule's shell, so srun gets all of them again.
    """
    refuse_what_pbs_has_not(resources)
    refuse_what_is_not_here(project_of(wildcards), resources)
    tell_of_pretrained(project_of(wildcards))
    nodes, per_node = resources.get("nodes", 1), resources.get("tasks_per_node")
    tasks = nodes * per_node if per_node else resources.get("tasks", 1)
    refuse_encoders_alone(project_of(wildcards), tasks if resources.get("mpi") else 1)
    if not resources.get("mpi"):
        return ""
    if resources.mpi == "torchrun" and nodes == 1:
        return (
            # Its own stores would listen on all addresses of the machine.
            f"env TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 torchrun --rdzv-backend=c10d"
            f" --rdzv-conf=store_type=file --nnodes=1 --nproc-per-node={tasks}"
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
