"""Snapshots of power-function averages: where they lie in a run directory, and what is exported with them.

They are float32, as the averages are: half precision rounds weights by 2e-4 of their size, which is more than what
reconstruction loses, and coefficients of both signs make more of it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darkroom.config.run import Cache, Train
from darkroom.objectives.power_function import exponent_of
from darkroom.settings.json_texts import read_json
from darkroom.store import write_json

FOLDER = "snapshots"
_EXPORT = "export.json"


def snapshot_folder(run_dir: str | Path, settings: Train, step: int) -> Path:
    """Where a training's snapshot after `step` completed steps lies.

    Trainings of other lengths share a run directory, and their steps before a decay at the end. Steps of a decay
    are of one of them alone.
    """
    last_stable, folder = settings.num_stable_steps, Path(run_dir) / FOLDER
    if last_stable is not None and step > last_stable:
        folder /= f"decay-{last_stable:08d}-{settings.num_steps:08d}"
    return folder / f"step-{step:08d}"


@dataclass(frozen=True)
class ExportWith:
    """What the export of a training's average takes from its cache.

    sizes: see `train.data.LatentCache.sizes`. mean_pixels: of the pictures as they are trained on.
    """

    cache: Cache
    sizes: dict[str, Any]
    mean_pixels: float

    def write(self, run_dir: str | Path) -> None:
        """Keep it beside the snapshots, which are then exported without the cache."""
        cache = self.cache.model_dump(mode="json")
        write_json(
            Path(run_dir) / FOLDER / _EXPORT,
            {"cache": cache, "sizes": self.sizes, "mean_pixels": self.mean_pixels},
        )

    @classmethod
    def read(cls, run_dir: str | Path) -> "ExportWith":
        """What `write` has kept.

        Raises:
            ValueError: it is not there, or no longer as it was written.
        """
        path = Path(run_dir) / FOLDER / _EXPORT
        try:
            found = read_json(path.read_text(encoding="utf-8"))
            sizes = {name: tuple(n) if isinstance(n, list) else n for name, n in found["sizes"].items()}
            return cls(Cache(**found["cache"]), sizes, float(found["mean_pixels"]))
        except FileNotFoundError:
            raise ValueError(f"{path}: missing, and with it the training's snapshots") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: is not as the training wrote it ({error})") from None


def described(settings: Train, num_weights: int) -> str:
    """What the snapshots of a training of so many trained weights come to: a line of its log; "" without any."""
    wanted = settings.post_hoc_ema
    if wanted is None:
        return ""
    num, size = len(wanted.steps(settings.num_steps)), 4 * num_weights * len(wanted.widths)
    widths = ", ".join(f"{width:g} (gamma {exponent_of(width):.2f})" for width in wanted.widths)
    return (
        f"averages of the widths {widths} take {size / 1e9:.3g} GB of memory besides, and their {num} snapshots of"
        f" {size / 1e9:.3g} GB each {num * size / 1e9:.3g} GB of disk in {FOLDER}/ beside the checkpoints"
    )
