"""What a pretrained pipeline's own files say, beside what a run is told to do with it."""

import json
from pathlib import Path
from typing import Any

from darkroom.components.base import Component
from darkroom.settings.paths import local_path

_PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "v", "sample": "x0", "flow_prediction": "flow"}
_DEFAULT_SCALE = 0.18215  # of diffusers' AutoencoderKL


def pretrained_notes(prediction: str, pretrained: Path, vae: Path) -> list[str]:
    """Where a run goes another way than the weights that it goes on from: a sentence for each key.

    Both may be meant, so neither is refused: fine-tuning can change what a network predicts, at a cost in steps.

    Args:
        prediction: `train.objective.prediction`.
        pretrained: the folder of `model.pretrained`, a pipeline's or a part of one. Where it has neither scheduler
            nor VAE beside the network nothing is known, and nothing said.
        vae: the folder of `cache.vae`.
    """
    pipeline = pretrained if (pretrained / "model_index.json").is_file() else pretrained.parent
    notes = []
    scheduler = _read(pipeline / "scheduler/scheduler_config.json")
    if scheduler is not None:
        is_flow = "FlowMatch" in str(scheduler.get("_class_name"))
        found = "flow" if is_flow else _PREDICTIONS.get(scheduler.get("prediction_type", "epsilon"))
        if found is not None and found != prediction:
            notes.append(
                f"train.objective.prediction: the weights in {pretrained} predict {found}, as their scheduler says"
                f", and this run trains {prediction}; write prediction: {found} to go on from what they know"
            )
    theirs, ours = _read(pipeline / "vae/config.json"), _read(vae / "config.json")
    if theirs is not None and ours is not None and _scale_and_shift(theirs) != _scale_and_shift(ours):
        (scale, shift), (our_scale, our_shift) = _scale_and_shift(theirs), _scale_and_shift(ours)
        notes.append(
            f"cache.vae: the weights in {pretrained} know latents of scaling_factor {scale:g} and shift_factor"
            f" {shift:g}, as their VAE's config says; this VAE has {our_scale:g} and {our_shift:g}: take theirs"
        )
    return notes


def planned_notes(
    prediction: str, pretrained: Component | None, vae: Component, root: str | Path = "."
) -> list[str]:
    """The same of components that lie on this machine; what does not is told by the training."""
    if pretrained is None:
        return []
    return pretrained_notes(prediction, *(_folder(component, Path(root)) for component in (pretrained, vae)))


def _folder(component: Component, root: Path) -> Path:
    return root / local_path(component.path) / (component.subfolder or "")


def _scale_and_shift(config: dict[str, Any]) -> tuple[float, float]:
    return float(config.get("scaling_factor") or _DEFAULT_SCALE), float(config.get("shift_factor") or 0.0)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # told by who needs it
        return None
    return found if isinstance(found, dict) else None
