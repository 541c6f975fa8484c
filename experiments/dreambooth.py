"""DreamBooth: what a subject does to its class, with prior preservation and without.

    python experiments/dreambooth.py --out FOLDER

A base model learns coloured shapes. `darkroom sample` draws its pictures of the class; then it learns one subject
from four pictures, twice: half of every batch shows the class, or none of it does. Prints how alike CLIP finds the
pictures that are drawn and the subject or the class, and GenEval's verdicts; writes the table and a sheet.
"""

import argparse
import contextlib
import copy
import io
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from small import COMPONENTS, MemoryCache, demo_text_encoder, demo_vae, draw, interval, train

from darkroom.cli import app
from darkroom.components.base import Component
from darkroom.components.clip import ClipScorer, load_clip
from darkroom.config import load_project
from darkroom.config.model import read_model
from darkroom.config.run import Sampling, TextEncoderUse, Train
from darkroom.formats.diffusers import export_pipeline
from darkroom.metrics import rules
from darkroom.models.denoiser import Denoiser
from darkroom.models.families import build_denoiser
from darkroom.sample.families import make_family_pipeline
from darkroom.sample.grid import write_grid
from darkroom.sample.schedulers import make_scheduler
from darkroom.sample.seeds import picture_seed
from darkroom.sources import dreambooth
from darkroom.sources.base import CLASS_URLS
from darkroom.sources.files import path_of
from darkroom_demo import detector
from darkroom_demo.folder import single_scene
from darkroom_demo.render import render
from darkroom_demo.scenes import GROUNDS, SHAPES

ROOT = Path(__file__).parents[1]
SIDE_PX, SEED, RECIPE = 64, 0, "dreambooth-sd14-tiny"
SUBJECT_COLOR, COLORS = "yellow", ("red", "green", "blue")
MODEL = {"family": "mmdit", "num_blocks": 4, "num_heads": 3, "head_dim": 64, "patch_size": 1}
USE = TextEncoderUse(name="demo-text", max_tokens=12, padded=True, hidden_layer=-2, pooled=True)
SAMPLING = Sampling(num_inference_steps=16, guidance_scale=3.0, width_px=SIDE_PX, height_px=SIDE_PX)
TRAININGS = ("base model", "with prior preservation", "without")
HEADER = f"""| Pictures | Measure | {" | ".join(TRAININGS)} |
|---|---|---|---|---|"""


def world(num: int) -> tuple[np.ndarray, list[str]]:
    """Pictures of one shape each, and captions that name its colour or, for half of them, do not."""
    rng = np.random.default_rng(SEED)
    pictures, captions = [], []
    for _ in range(num):
        color, shape = str(rng.choice([SUBJECT_COLOR, *COLORS])), str(rng.choice(SHAPES))
        pictures.append(render(single_scene(rng, color, shape, str(rng.choice(GROUNDS)), (SIDE_PX, SIDE_PX))))
        captions.append(f"a photo of a {shape}" if rng.random() < 0.5 else f"a photo of a {color} {shape}")
    return np.stack(pictures), captions


def base_settings(num_steps: int) -> Train:
    """Rectified flow and Muon, as the demo's run."""
    return Train(
        num_steps=num_steps,
        global_batch_size=64,
        microbatch_size=64,
        optimizer="muon",
        learning_rate=2e-3,
        weight_decay=0.0,
        num_warmup_steps=num_steps // 20,
        timestep_shift=2.0,
        ema_decay=0.99,
        log_every_steps=100,
    )


def tuning_settings(num_steps: int, prior_weight: float | None) -> Train:
    """As the recipe: AdamW at a constant rate, no average. A step shows 8 pictures of the subject."""
    size = 8 if prior_weight is None else 16
    return Train(
        num_steps=num_steps,
        global_batch_size=size,
        microbatch_size=size,
        learning_rate=1e-4,
        learning_rate_decay="constant",
        weight_decay=0.0,
        timestep_shift=2.0,
        caption_dropout=0.0,
        prior_weight=prior_weight,
        ema_decay=0.0,
        log_every_steps=40,
    )


def draw_class(base: Any, prompt: str, num: int, folder: Path) -> Path:
    """The class as the base model draws it, by the project's own command; returns the pictures' folder."""
    export_pipeline(base, folder / "base")
    values = {
        "num-pictures": num,
        "steps": SAMPLING.num_inference_steps,
        "guidance": SAMPLING.guidance_scale,
        "width": SIDE_PX,
        "height": SIDE_PX,
        "batch-size": 16,
        "out": folder / "class",
    }
    options = [text for name, value in values.items() for text in (f"--{name}", str(value))]
    with contextlib.redirect_stdout(io.StringIO()):
        app(["sample", str(folder / "base"), prompt, *options], standalone_mode=False)
    return folder / "class" / "model"


def read_source(source: Any) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Pictures, captions and which are the class's of a `dreambooth` source; the subject's come first."""
    folders, listing = dreambooth.FOLDERS.folders(source), dreambooth.FOLDERS.listing(source)
    rows = sorted((row.url.startswith(CLASS_URLS), row.url, row.captions[0]) for row in listing.rows)
    pictures = [np.asarray(Image.open(path_of(url, folders)[1]).convert("RGB")) for _, url, _ in rows]
    return (
        np.stack(pictures),
        [text for _, _, text in rows],
        np.array([is_class for is_class, _, _ in rows]),
    )


def is_right(picture: np.ndarray, shape: str, color: str | None = None) -> bool:
    """GenEval's verdict: one such shape, of that colour if one is asked for."""
    wanted = {"class": shape, "count": 1} | ({"color": color} if color else {})
    record = {"tag": "colors" if color else "single_object", "include": [wanted], "prompt": ""}
    return rules.judge(picture, detector.detect(picture), record, detector.classify_color).correct


def measure(
    pipeline: Any, source: Any, subject: torch.Tensor, prior: torch.Tensor, clip: ClipScorer, num: int
) -> tuple[dict[tuple[str, str], np.ndarray], np.ndarray]:
    """(prompt, measure) -> a value for each of `num` pictures of that prompt; and the pictures of both prompts.

    Args:
        subject, prior: CLIP's embeddings of the subject's pictures and of the class's, of length 1.
    """
    shape = source.class_prompt.split()[-1]
    colors = [COLORS[k * len(COLORS) // num] for k in range(num)]
    colored = [f"a photo of a {color} {shape}" for color in colors]
    prompts = [*[source.instance_prompt] * num, *[source.class_prompt] * num, *colored]
    seeds = [picture_seed(SEED, p, k) for p in range(3) for k in range(num)]
    drawn = draw(pipeline, prompts, seeds, SAMPLING)
    of_subject, of_class, of_colors = np.split(drawn, 3)
    near = clip.encode_images(list(of_subject)), clip.encode_images(list(of_class))
    both = np.stack([of_subject, of_class])
    return {
        (source.instance_prompt, "CLIP, to the subject"): (near[0] @ subject.T).mean(dim=1).numpy(),
        (source.class_prompt, "CLIP, to the class"): (near[1] @ prior.T).mean(dim=1).numpy(),
        (source.class_prompt, "CLIP, to the subject"): (near[1] @ subject.T).mean(dim=1).numpy(),
        (source.class_prompt, "GenEval"): np.array([is_right(p, shape) for p in of_class], float),
        (f"a photo of a red, green, blue {shape}", "GenEval"): np.array(
            [is_right(p, shape, color) for p, color in zip(of_colors, colors, strict=True)], float
        ),
    }, both


def rows_of(found: list[dict[tuple[str, str], np.ndarray]]) -> list[str]:
    """A line for each measure: means, and each tuned model's change from the base model, same seeds paired."""
    rows = []
    for (prompt, name), base in found[0].items():
        cells = [f"{base.mean():.3f}"]
        for tuned in found[1:]:
            change = tuned[prompt, name] - base
            low, high = interval(change)
            cells.append(
                f"{tuned[prompt, name].mean():.3f}: {change.mean():+.3f} ({low:+.3f} to {high:+.3f})"
            )
        rows.append(f"| {prompt} | {name} | {' | '.join(cells)} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--num-base-steps", type=int, default=900)
    parser.add_argument("--num-steps", type=int, default=120, help="of each of the two trainings")
    parser.add_argument(
        "--num-train", type=int, default=1500, help="pictures that the base model learns from"
    )
    parser.add_argument("--num-class", type=int, default=48, help="pictures of the class to draw")
    parser.add_argument("--num-pictures", type=int, default=48, help="drawn of each prompt")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    vae, encoder = demo_vae(), demo_text_encoder()
    clip = load_clip(Component(kind="clip", path=str(COMPONENTS / "clip")))
    source: Any = load_project(RECIPE, ROOT).dataset.source
    num = arguments.num_pictures

    def in_pipeline(model: Denoiser) -> Any:
        scheduler = make_scheduler(base_settings(1), SIDE_PX**2)
        return make_family_pipeline(model, vae, [encoder], [USE], False, scheduler)

    print(TRAININGS[0], flush=True)
    cache = MemoryCache(*world(arguments.num_train), vae, [(encoder, USE)])
    network = build_denoiser(read_model(MODEL), cache.sizes, SEED)
    base = train(network, cache, base_settings(arguments.num_base_steps), SEED)
    with tempfile.TemporaryDirectory() as folder:
        drawn = draw_class(in_pipeline(base), source.class_prompt, arguments.num_class, Path(folder))
        source = source.model_copy(update={"class_folder": str(drawn)})
        pictures, captions, is_class = read_source(source)
    subject, prior = (clip.encode_images(list(pictures[chosen])) for chosen in (~is_class, is_class))
    found, sheet, labels = [], [*pictures[:4], *pictures[is_class][:2]], ["subject"] * 4 + ["class"] * 2
    for name, prior_weight in zip(TRAININGS, (None, 1.0, None), strict=True):
        model = base
        if name != TRAININGS[0]:
            print(name, flush=True)
            shown = slice(None) if prior_weight else slice(int((~is_class).sum()))
            cache = MemoryCache(pictures[shown], captions[shown], vae, [(encoder, USE)])
            priors = cache.uids[cache.bucket][is_class] if prior_weight else None
            settings = tuning_settings(arguments.num_steps, prior_weight)
            model = train(copy.deepcopy(base).requires_grad_(True), cache, settings, SEED, priors=priors)
        values, both = measure(in_pipeline(model), source, subject, prior, clip, num)
        found.append(values)
        for prompt, of_prompt in zip((source.instance_prompt, source.class_prompt), both, strict=True):
            sheet += [of_prompt[k % num] for k in range(6)]
            labels += [f"{name}: {prompt}"] * 6
    table = "\n".join([HEADER, *rows_of(found)])
    print(
        f"{table}\n{num} pictures of each prompt and model; {(time.perf_counter() - start) / 60:.1f} minutes"
    )
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "dreambooth.md").write_text(table + "\n")
    write_grid(arguments.out / "dreambooth.png", np.stack(sheet), labels, 6, cell_px=96)


if __name__ == "__main__":
    main()
