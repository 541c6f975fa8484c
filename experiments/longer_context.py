"""What comes after token 77 of a caption: SD3 with a T5 of 77 tokens, with a longer T5, with the extension.

    python experiments/longer_context.py --out FOLDER

Every caption begins with more than 77 tokens that say nothing of the picture; the colour comes last. The same SD3
on the same pictures, batches and noise. Prints the share of pictures whose shape GenEval's rules find in the right
colour, and whether the extension leaves step 0 as it was; writes the table and a sheet of pictures.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.utils.logging import set_verbosity_error
from small import MemoryCache, demo_text_encoder, demo_vae, draw, train
from transformers import T5Config, T5EncoderModel, logging

from darkroom.components.text import TextEncoder
from darkroom.config.model import read_model
from darkroom.config.run import Sampling, TextEncoderUse, Train
from darkroom.metrics import rules
from darkroom.models.families import build_denoiser
from darkroom.sample.families import make_family_pipeline
from darkroom.sample.grid import write_grid
from darkroom.sample.schedulers import make_scheduler
from darkroom.sample.seeds import picture_seed
from darkroom_demo import detector
from darkroom_demo.render import render
from darkroom_demo.scenes import Scene, Thing

SIDE_PX, SEED, BASE_TOKENS, LONG_TOKENS = 64, 0, 77, 96
COLORS = ("red", "yellow", "green", "blue")
SD3 = {
    "num_layers": 3,
    "num_attention_heads": 4,
    "attention_head_dim": 32,
    "patch_size": 1,
    "pos_embed_max_size": SIDE_PX // 16,
    "sample_size": SIDE_PX // 16,
}
EXTENSION = {"form": "residual", "num_base_tokens": BASE_TOKENS, "hidden_dim": 256}
CASES: dict[str, tuple[int, dict[str, Any]]] = {
    "77 tokens": (BASE_TOKENS, {"params": SD3}),
    "96 tokens": (LONG_TOKENS, {"params": SD3}),
    "96 tokens, extension": (LONG_TOKENS, {"params": SD3, "context": EXTENSION}),
}
SAMPLING = Sampling(num_inference_steps=16, guidance_scale=3.0, width_px=SIDE_PX, height_px=SIDE_PX)
# Each is one token of the demo's vocabulary.
WORDS = (
    "photo",
    "picture",
    "image",
    "stock",
    "free",
    "download",
    "full",
    "view",
    "description",
    "poster",
    "frame",
)
HEADER = """| Training | GenEval, colours | Pictures |
|---|---|---|"""


def caption(color: str, rng: np.random.Generator) -> str:
    """78 to 84 words that say nothing, then the colour."""
    return " ".join([*rng.choice(WORDS, int(rng.integers(78, 85))), "a", color, "circle"])


def world(num: int) -> tuple[np.ndarray, list[str]]:
    """Pictures of one large circle each, in the demo world's manner, and their captions."""
    rng = np.random.default_rng(SEED)
    pictures, captions = [], []
    for k in range(num):
        thing = Thing("circle", COLORS[k % len(COLORS)], 0.5, 0.5, float(rng.uniform(0.7, 0.85)), 0.0)
        scene = Scene("colors", (thing,), "plain", "white", SIDE_PX, SIDE_PX, int(rng.integers(2**31)))
        pictures.append(render(scene))
        captions.append(caption(thing.color, rng))
    return np.stack(pictures), captions


def text_encoders(max_tokens: int) -> list[tuple[TextEncoder, TextEncoderUse]]:
    """The demo's CLIP in both CLIPs' place, and a T5 with random weights: it tells tokens apart."""
    clip = demo_text_encoder()
    torch.manual_seed(SEED)
    config = T5Config(
        vocab_size=len(clip.tokenizer), d_model=256, d_kv=32, d_ff=256, num_layers=1, num_heads=4
    )
    t5 = TextEncoder(T5EncoderModel(config).eval().requires_grad_(False), clip.tokenizer)
    as_clip = TextEncoderUse(name="clip", hidden_layer=-2, max_tokens=32, padded=True, pooled=True)
    return [(clip, as_clip)] * 2 + [(t5, TextEncoderUse(name="t5", max_tokens=max_tokens, padded=True))]


def settings_of(num_steps: int) -> Train:
    """Rectified flow, as SD3."""
    return Train(
        num_steps=num_steps,
        global_batch_size=32,
        microbatch_size=32,
        learning_rate=1e-3,
        weight_decay=0.0,
        num_warmup_steps=num_steps // 20,
        ema_decay=0.99,
        log_every_steps=50,
    )


def step_0_is_the_same(cache: MemoryCache) -> bool:
    """Whether the networks with and without the extension give the same bits, not all 0, before step 1."""
    samples = cache.gather(cache.bucket, np.arange(4), np.zeros(4, int))
    sections = [CASES["96 tokens"][1], CASES["96 tokens, extension"][1]]
    with torch.no_grad():
        base, longer = (
            build_denoiser(read_model({"family": "sd3", **section}), cache.sizes, SEED)(
                samples.latents, torch.linspace(0.1, 0.9, 4), samples.conditioning
            )
            for section in sections
        )
    return torch.equal(base, longer) and bool(base.any())


def is_right(picture: np.ndarray, color: str) -> bool:
    """GenEval's verdict: one circle of that colour."""
    record = {"tag": "colors", "include": [{"class": "circle", "count": 1, "color": color}], "prompt": ""}
    return rules.judge(picture, detector.detect(picture), record, detector.classify_color).correct


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--num-steps", type=int, default=300)
    parser.add_argument("--num-train", type=int, default=256, help="pictures to train on")
    parser.add_argument("--num-pictures", type=int, default=10, help="drawn of each colour")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    # Both tell of every caption that it is longer than CLIP's 32 tokens, which is the point.
    set_verbosity_error()
    logging.set_verbosity_error()
    start = time.perf_counter()
    vae, settings, num = demo_vae(), settings_of(arguments.num_steps), arguments.num_pictures
    data = world(arguments.num_train)
    rng = np.random.default_rng(SEED + 1)
    asked = [color for color in COLORS for _ in range(num)]
    prompts = [caption(color, rng) for color in asked]
    seeds = [picture_seed(SEED, 0, k) for k in range(len(prompts))]
    rows: list[str] = []
    shown: list[np.ndarray] = []
    captions: list[str] = []
    for name, (max_tokens, section) in CASES.items():
        print(name, flush=True)
        encoders = text_encoders(max_tokens)
        cache = MemoryCache(*data, vae, encoders)
        denoiser = build_denoiser(read_model({"family": "sd3", **section}), cache.sizes, SEED)
        average = train(denoiser, cache, settings, SEED)
        scheduler = make_scheduler(settings, SIDE_PX**2)
        models, uses = zip(*encoders, strict=True)
        pipeline = make_family_pipeline(average, vae, models, uses, False, scheduler)
        pictures = draw(pipeline, prompts, seeds, SAMPLING)
        right = [is_right(picture, color) for picture, color in zip(pictures, asked, strict=True)]
        rows.append(f"| {name} | {np.mean(right):.2f} | {len(right)} |")
        shown.extend(pictures[::num])
        captions.extend(f"{name}: ... a {color} circle" for color in COLORS)
    same = step_0_is_the_same(cache)
    table = "\n".join([HEADER, *rows])
    print(f"{table}\nstep 0 with the extension is the base model's, bit for bit: {same}")
    print(f"{(time.perf_counter() - start) / 60:.1f} minutes")
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "longer-context.md").write_text(table + "\n")
    write_grid(arguments.out / "longer-context.png", np.stack(shown), captions, len(COLORS), cell_px=128)


if __name__ == "__main__":
    main()
