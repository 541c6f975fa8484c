"""How bright are pictures whose caption does not tell? v, and v with a zero terminal SNR.

    python experiments/brightness.py --out FOLDER

Black, grey and white pictures share one caption. The same UNet on the same batches and noise; only the end of the
schedule differs. Prints how often each shade is drawn, and writes the table and a sheet of pictures.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from small import MemoryCache, demo_text_encoder, demo_vae, draw, interval
from zero_terminal_snr import OBJECTIVES, SEED, SHADES, SIDE_PX, TOLERANCE, USE, trained_pipeline

from darkroom.components.vae import decode_latents
from darkroom.config.run import Sampling
from darkroom.sample.grid import write_grid
from darkroom.sample.seeds import picture_seed

CAPTION = "a plain picture"
SAMPLING = Sampling(num_inference_steps=25, guidance_scale=1.0, width_px=SIDE_PX, height_px=SIDE_PX)
HEADER = f"""| Pictures | Number | {" | ".join(SHADES)} | none of them | Mean brightness | 95 % interval |
|---|---|---|---|---|---|---|---|"""


def world(num: int) -> np.ndarray:
    """Plain pictures with a little grain: black, grey and white in turn."""
    rng = np.random.default_rng(SEED)
    shades = np.resize(list(SHADES.values()), num)[:, None, None, None]
    grain = (shades + rng.normal(0, 0.02, (num, SIDE_PX, SIDE_PX, 1))).clip(0, 1)
    return np.rint(grain * 255).astype(np.uint8).repeat(3, axis=3)


def row(name: str, pictures: np.ndarray) -> str:
    """A line of the table, from pictures (N, H, W, 3) uint8: the share of each shade, and the mean brightness."""
    brightness = pictures.mean(axis=(1, 2, 3)) / 255
    shares = [float((abs(brightness - shade) <= TOLERANCE).mean()) for shade in SHADES.values()]
    cells = " | ".join(f"{share:.2f}" for share in [*shares, 1 - sum(shares)])
    low, high = interval(brightness)
    return f"| {name} | {len(pictures)} | {cells} | {brightness.mean():.3f} | {low:.3f} to {high:.3f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--num-steps", type=int, default=400)
    parser.add_argument("--num-train", type=int, default=300, help="pictures to train on")
    parser.add_argument("--num-pictures", type=int, default=96, help="drawn from each model")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    vae, encoder, num = demo_vae(), demo_text_encoder(), arguments.num_pictures
    cache = MemoryCache(world(arguments.num_train), [CAPTION] * arguments.num_train, vae, [(encoder, USE)])
    decoded = torch.cat([decode_latents(vae, part) for part in cache.latents.split(64)])
    known = ((decoded / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    rows, shown, captions = [row("trained on, through the VAE", known)], [*known[:8]], ["trained on"] * 8
    seeds = [picture_seed(SEED, 0, k) for k in range(num)]
    for name in ("v", "v, zero terminal SNR"):
        print(name, flush=True)
        pipeline = trained_pipeline(OBJECTIVES[name], cache, vae, encoder, arguments.num_steps)
        pictures = draw(pipeline, [CAPTION] * num, seeds, SAMPLING)
        rows.append(row(name, pictures))
        shown.extend(pictures[k % num] for k in range(8))
        captions.extend([name] * 8)
    table = "\n".join([HEADER, *rows])
    print(f"{table}\n{(time.perf_counter() - start) / 60:.1f} minutes")
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "brightness.md").write_text(table + "\n")
    write_grid(arguments.out / "brightness.png", np.stack(shown), captions, 8, cell_px=80)


if __name__ == "__main__":
    main()
