"""What a pretrained pipeline's own files say, beside what a run is told to do with it."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from darkroom.components.base import Component
from darkroom.config.component_files import component_files, read_json_file

_PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "v", "sample": "x0", "flow_prediction": "flow"}
_DEFAULT_SCALE = 0.18215  # of diffusers' AutoencoderKL
_NO_PART = [None, None]
_NONE: Mapping[str, int] = MappingProxyType({})


def pretrained_notes(
    prediction: str, pretrained: Path, vae: Path, tokens: Mapping[str, int] = _NONE
) -> list[str]:
    """Where a run goes another way than the weights that it goes on from: a sentence for each key.

    All may be meant, so none is refused: fine-tuning can change what a network predicts, at a cost in steps.

    Args:
        prediction: `train.objective.prediction`.
        pretrained: the folder of `model.pretrained`, a pipeline's or a part of one. Where it has neither scheduler
            nor VAE beside the network nothing is known, and nothing said.
        vae: the folder of `cache.vae`.
        tokens: key -> how many each text encoder reads, in order.
    """
    pipeline = pretrained if (pretrained / "model_index.json").is_file() else pretrained.parent
    notes = []
    scheduler = read_json_file(pipeline / "scheduler/scheduler_config.json")
    if scheduler is not None:
        is_flow = "FlowMatch" in str(scheduler.get("_class_name"))
        found = "flow" if is_flow else _PREDICTIONS.get(scheduler.get("prediction_type", "epsilon"))
        if found is not None and found != prediction:
            notes.append(
                f"train.objective.prediction: the weights in {pretrained} predict {found}, as their scheduler says"
                f", and this run trains {prediction}; write prediction: {found} to go on from what they know"
            )
    theirs, ours = read_json_file(pipeline / "vae/config.json"), read_json_file(vae / "config.json")
    if theirs is not None and ours is not None and _scale_and_shift(theirs) != _scale_and_shift(ours):
        (scale, shift), (our_scale, our_shift) = _scale_and_shift(theirs), _scale_and_shift(ours)
        notes.append(
            f"cache.vae: the weights in {pretrained} know latents of scaling_factor {scale:g} and shift_factor"
            f" {shift:g}, as their VAE's config says; this VAE has {our_scale:g} and {our_shift:g}: take theirs"
        )
    notes += _token_notes(pretrained, pipeline, tokens)
    if (read_json_file(pipeline / "model_index.json") or {}).get("safety_checker", _NO_PART) != _NO_PART:
        notes.append(
            f"model.pretrained: {pretrained} has a safety checker, which makes pictures black; what is trained and"
            " exported draws without one"
        )
    return notes


def _token_notes(pretrained: Path, pipeline: Path, tokens: Mapping[str, int]) -> list[str]:
    """Of the CLIPs: other encoders' tokenizers say no length, or one that their pipeline's call replaces."""
    notes = []
    for place, (key, read) in enumerate(tokens.items()):
        folder = pipeline / (f"tokenizer_{place + 1}" if place else "tokenizer")
        told = read_json_file(folder / "tokenizer_config.json") or {}
        is_clip = str(told.get("tokenizer_class")).startswith("CLIPTokenizer")
        if is_clip and told.get("model_max_length", read) != read:
            notes.append(
                f"{key}: the weights in {pretrained} know prompts of {told['model_max_length']} tokens, as their"
                f" tokenizer says, and this run reads {read}"
            )
    return notes


def planned_notes(
    prediction: str,
    pretrained: Component | None,
    vae: Component,
    tokens: Mapping[str, int] = _NONE,
    root: str | Path = ".",
) -> list[str]:
    """The same of components that lie on this machine; what does not is told by the training."""
    if pretrained is None:
        return []
    folder, of_vae = (component_files(component, Path(root)) for component in (pretrained, vae))
    return pretrained_notes(prediction, folder, of_vae, tokens)


def _scale_and_shift(config: dict[str, Any]) -> tuple[float, float]:
    return float(config.get("scaling_factor") or _DEFAULT_SCALE), float(config.get("shift_factor") or 0.0)
