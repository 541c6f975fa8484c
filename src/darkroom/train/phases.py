"""Phases: a training that goes on from the end of another one, with buckets, batches and a schedule of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darkroom.components.base import Component
from darkroom.config.model import read_model
from darkroom.config.run import Train
from darkroom.families.base import ModelSection
from darkroom.store import read_manifest, sha256_json
from darkroom.train.checkpoint import checkpoint_folder, newest_checkpoint, read_checkpoint, run_key
from darkroom.train.state import TrainState


@dataclass(frozen=True)
class InitialCheckpoint:
    """The end of the phase before.

    run: its name. folder: its last checkpoint. num_steps, num_samples: of all phases up to there; batches go
    on after so many samples.
    """

    run: str
    folder: Path
    num_steps: int
    num_samples: int = 0

    def load_into(self, state: TrainState, with_moments: bool) -> None:
        """Take over its weights, their average and, if wanted, the optimizers' moments, in place.

        Raises:
            ValueError: the checkpoint is of another model.
        """
        try:
            state.load(read_checkpoint(self.folder), with_moments)
        except (RuntimeError, KeyError) as error:
            raise ValueError(f"{self.folder}: does not fit this run's model ({error})") from error


@dataclass(frozen=True)
class FinishedTraining:
    """A training as its manifest tells it.

    settings, model, seed, components: what it was made with. folder: its run directory, of which nothing may be
    left. counts: of the manifest.
    """

    settings: Train
    model: ModelSection
    seed: int
    components: Mapping[str, Component]
    folder: Path
    counts: Mapping[str, Any]

    @property
    def num_steps(self) -> int:
        """Where it ended."""
        return int(self.counts["steps"])


def read_finished(manifest: str | Path, run_dir: str | Path) -> FinishedTraining:
    """A finished training.

    Args:
        manifest: of its train stage.
        run_dir: where its run's trainings keep their checkpoints, one folder for each `run_key`.
    """
    body = read_manifest(manifest)
    params = body["params"]
    settings, model, seed = Train(**params["train"]), read_model(params["model"]), params["seed"]
    own = made_from(body["upstream"], params.get("datasets", ()))
    components = {name: Component(**values) for name, values in params.get("components", {}).items()}
    folder = Path(run_dir) / run_key(model, settings, seed, own)
    return FinishedTraining(settings, model, seed, components, folder, body["counts"])


def find_initial(run: str, manifest: str | Path, run_dir: str | Path) -> InitialCheckpoint:
    """The last checkpoint of a finished run.

    Args:
        run: its name.
        manifest, run_dir: see `read_finished`.

    Raises:
        ValueError: the checkpoint is no longer there, or is not of the last step.
    """
    finished = read_finished(manifest, run_dir)
    folder, num_steps = finished.folder, finished.num_steps
    last = checkpoint_folder(folder, num_steps)
    step = newest_checkpoint(
        folder, why_not=lambda found: "" if found <= last else f"run {run} ends at step {num_steps}"
    )
    if step != num_steps:
        found = "no checkpoint is there" if step is None else f"its last checkpoint is of step {step}"
        raise ValueError(
            f"{folder}: {found}, where run {run} left one of step {num_steps}; train it again:"
            f" snakemake train -R train_run --config run={run}"
        )
    steps, samples = (int(finished.counts.get(f"{what}_before", 0)) for what in ("steps", "samples"))
    return InitialCheckpoint(
        run,
        checkpoint_folder(folder, step),
        steps + num_steps,
        samples + num_steps * finished.settings.global_batch_size,
    )


def made_from(upstream: Mapping[str, str], datasets: Sequence[Mapping[str, Any]] = ()) -> str:
    """What a training is made from, as `run_key` takes it.

    Args:
        upstream: its manifest's: the digest of its cache, or of each dataset's, and that of the phase before.
        datasets: the section `datasets` of its settings, where it has several.
    """
    digests = [upstream[name] for name in sorted(upstream)]
    return chain_digest([*digests, *([sha256_json(list(datasets))] if datasets else [])])


def chain_digest(digests: Sequence[str]) -> str:
    """Several digests as one text."""
    return "-".join(digests)
