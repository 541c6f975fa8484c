"""What one GPU does: training steps, attention operators, encoders, NCCL; and the tests that need a GPU.

Weights are random, architectures are the real ones, all in bfloat16 over weights in float32, as a training
computes. Each part is a process of its own: one that runs out of memory or time costs its row. Ends with 1 where
a part failed. With --dry small networks go through the same on a CPU, and no test runs.

    bash speed/gpu.sh [--out FOLDER] [--seconds 480] [--only PART ...]
    python speed/gpu.py --dry
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import gpu_models as models

ROOT = Path(__file__).parents[1]
# What a repetition is measured over, and how long a part may take in all.
MEASURED_S, PART_S = 6.0, 150.0
ATTENTIONS = ("sdpa", "flash", "xformers")
Row = dict[str, Any]


# Parts: each gives its rows


def train(name: str, dry: bool) -> list[Row]:
    """Steps of the real `Stepper` on random batches: forward, backward, clipping, AdamW, moving average."""
    import copy

    import torch

    from darkroom.config.run import Train
    from darkroom.train.flops import peak_flops, training_flops
    from darkroom.train.step import Stepper, make_optimizers

    network, device = models.NETWORKS[name], on(dry)
    size = 2 if dry else network.batch
    settings = Train(
        num_steps=1000,
        global_batch_size=size,
        microbatch_size=size,
        dtype="bfloat16",
        objective=network.objective,
    )
    model = build(network, device, dry)
    average = copy.deepcopy(model).eval().requires_grad_(False)
    stepper = Stepper(model.train(), make_optimizers(model, settings), average, settings)
    batch = random_batch(network, size, dry)
    seconds = measured(lambda: stepper.step(batch), device, dry)
    trained = [key for key, p in model.named_parameters() if p.requires_grad]
    flops = size * training_flops(average, trained, batch.latents[:1], batch.conditioning[:1]) / seconds
    peak = None if dry else peak_flops(torch.cuda.get_device_name(device), "bfloat16")
    return [
        {
            "work": f"train {name}",
            "batch": size,
            "per_second": size / seconds,
            "unit": "img/s",
            "steps_per_second": 1 / seconds,
            "tflops": flops / 1e12,
            "mfu": None if peak is None else flops / peak,
            "parameters": sum(p.numel() for p in model.parameters()),
            "memory_gib": memory(device),
        }
    ]


def attention(dry: bool) -> list[Row]:
    """One forward and backward pass of our MMDiT with each operator, and how far its output is from sdpa's."""
    import torch

    from darkroom.models.families import use_attention

    network, device = models.NETWORKS["MMDiT 1.2B 256"], on(dry)
    size = 2 if dry else network.batch // 2
    batch = random_batch(network, size, dry)
    noisy, given = batch.noise.to(device), batch.conditioning.to(device)
    rows, first = [], None
    for operator in ATTENTIONS[: 1 if dry else None]:
        model = build(network, device, dry)
        use_attention(model, operator, device, "bfloat16")

        def step(model: Any = model) -> torch.Tensor:
            with torch.autocast(device.type, torch.bfloat16):
                output: torch.Tensor = model(noisy, torch.full((size,), 0.5, device=device), given)
            output.float().square().mean().backward()
            return output.detach().float()

        output = step()
        first = output if first is None else first
        off = float((output - first).norm() / first.norm())
        if off > 0.02:
            raise ValueError(f"{operator} is off by {off:.2%} from sdpa")
        seconds = measured(step, device, dry)
        rows.append(
            {"work": f"attention {operator}", "batch": size, "per_second": size / seconds, "unit": "img/s",
             "off": off, "memory_gib": memory(device)}
        )  # fmt: skip
    return rows


def vae(dry: bool) -> list[Row]:
    """Pictures to latents, as the cache stage does it, at 512 px."""
    import torch
    from diffusers import AutoencoderKL

    from darkroom.components.vae import encode_latents

    device, side, size = on(dry), 32 if dry else 512, 2 if dry else 32
    pixels, rows = torch.rand(size, 3, side, side) * 2 - 1, []
    for name, more in models.VAES.items():
        with device:
            found: Any = AutoencoderKL(**(models.TINY_VAE if dry else models.VAE), **more)
        found.eval().requires_grad_(False)

        def encode(found: Any = found) -> Any:
            with torch.autocast(device.type, torch.bfloat16):
                return encode_latents(found, pixels)

        seconds = measured(encode, device, dry)
        rows.append(
            {"work": f"{name}, {side} px", "batch": size, "per_second": size / seconds, "unit": "img/s",
             "memory_gib": memory(device)}
        )  # fmt: skip
    return rows


def text(dry: bool) -> list[Row]:
    """Captions of full length to hidden states."""
    import torch
    import transformers

    device, size, rows = on(dry), 2 if dry else 64, []
    classes = {"CLIPTextConfig": "CLIPTextModelWithProjection", "T5Config": "T5EncoderModel"}
    for name, (config, values, num_tokens) in models.TEXT_ENCODERS.items():
        section = getattr(transformers, config)(**(models.TINY_TEXT[config] if dry else values))
        with device:
            encoder = getattr(transformers, classes[config])(section)
        encoder.eval().requires_grad_(False)
        tokens = torch.randint(3, 1000, (size, num_tokens), device=device)

        def encode(encoder: Any = encoder, tokens: Any = tokens) -> Any:
            with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
                return encoder(tokens).last_hidden_state

        seconds = measured(encode, device, dry)
        rows.append(
            {"work": f"text {name}, {num_tokens} tokens", "batch": size, "per_second": size / seconds,
             "unit": "captions/s", "memory_gib": memory(device)}
        )  # fmt: skip
        del encoder, encode
    return rows


def exchange(dry: bool) -> list[Row]:
    """A gradient of 1 GiB through all_reduce on one rank: that NCCL starts here, and what a call costs."""
    import torch
    import torch.distributed as dist

    device = on(dry)
    store = dist.HashStore()
    backend = "gloo" if dry else "nccl"
    dist.init_process_group(backend, store=store, rank=0, world_size=1)
    tensor = torch.ones((1 << 12) if dry else (1 << 28), device=device)
    seconds = measured(lambda: dist.all_reduce(tensor), device, dry)
    whole = bool((tensor == 1).all())
    dist.destroy_process_group()
    if not whole:
        raise ValueError(f"{backend} changed what one rank has alone")
    return [
        {"work": f"{backend}, one rank", "per_second": tensor.nbytes / seconds / 2**30, "unit": "GiB/s"}
    ]  # fmt: skip


def tests(dry: bool) -> list[Row]:
    """The tests that are skipped without a GPU."""
    if dry:
        return []
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_models_parts.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else "no output"
    if done.returncode or "skipped" in last:
        raise ValueError(f"pytest: {last}")
    return [{"work": f"tests on the GPU: {last}"}]


PARTS: dict[str, Callable[[bool], list[Row]]] = {
    **{f"train {name}": partial(train, name) for name in models.NETWORKS},
    "attention": attention,
    "vae": vae,
    "text": text,
    "exchange": exchange,
    "tests": tests,
}


# What they share


def on(dry: bool) -> Any:
    """The device."""
    import torch

    return torch.device("cpu" if dry else "cuda")


def build(network: models.Network, device: Any, dry: bool) -> Any:
    """A network with random weights, all of them: those that begin at zero would spare the GPU nothing, but hide
    a wrong operator."""
    import torch

    from darkroom.config.model import read_model
    from darkroom.models.families import build_denoiser

    section = read_model({"family": network.family, **(network.tiny if dry else network.section)})
    dims = tuple(dim for _, dim in shown_text(network, dry))
    sizes = {
        "latent_channels": network.channels,
        "text_dim": dims if len(dims) > 1 else dims[0],
        "pooled_dim": network.pooled,
    }
    with device:
        model = build_denoiser(section, sizes, seed=0).to(device)
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1 and not weight.any():
                weight.normal_(std=0.02, generator=generator)
    return model


def shown_text(network: models.Network, dry: bool) -> Iterable[tuple[int, int]]:
    """(tokens, channels) of each text encoder."""
    return [(8, 16) for _ in network.text] if dry else network.text


def random_batch(network: models.Network, size: int, dry: bool) -> Any:
    """A batch as the loader gives it."""
    import numpy as np
    import torch

    from darkroom.families.conditioning import Conditioning
    from darkroom.train.loader import TrainBatch

    generator = torch.Generator().manual_seed(0)
    side = 64 if dry else network.side
    shape = (size, network.channels, side // 8, side // 8)
    text = tuple(torch.randn(size, *of, generator=generator) for of in shown_text(network, dry))
    given = Conditioning(
        text,
        (None,) * len(text),
        torch.randn(size, network.pooled, generator=generator),
        torch.tensor([[side, side, 0, 0, side, side]] * size) if network.family == "unet-sdxl" else None,
    )
    latents, noise = (torch.randn(shape, generator=generator) for _ in range(2))
    normal = torch.randn(size, generator=generator)
    return TrainBatch(0, (side, side), latents, given, noise, normal, np.zeros((size, 2), np.uint64))


def measured(run: Callable[[], Any], device: Any, dry: bool) -> float:
    """Seconds of one call: the mean over some seconds, after two that count nothing."""
    import torch

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    for _ in range(1 if dry else 2):
        run()
    wait()
    begin, num = time.perf_counter(), 0
    while num == 0 or (not dry and time.perf_counter() - begin < MEASURED_S):
        run()
        num += 1
        wait()
    return (time.perf_counter() - begin) / num


def memory(device: Any) -> float | None:
    """The most that was in use on a GPU, GiB."""
    import torch

    return torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None


# All parts, one after another


def run_part(name: str, dry: bool, limit_s: float) -> list[Row]:
    """Its rows, or one that says what went wrong."""
    command = [sys.executable, __file__, "--part", name, *(["--dry"] if dry else [])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]),
    }
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, env=environment)
    except subprocess.TimeoutExpired:
        return [{"work": name, "failed": f"not done in {limit_s:.0f} s"}]
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()] or [
            f"ended with {done.returncode}"
        ]
        return [{"work": name, "failed": said[-1][:300]}]
    rows: list[Row] = json.loads(done.stdout.strip().splitlines()[-1])
    return rows


def table(rows: Iterable[Row]) -> str:
    """The rows as Markdown."""
    lines = [
        "| Work | Batch | Speed | Steps/s | TFLOP/s | MFU | Memory, GiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if "failed" in row:
            lines.append(f"| {row['work']} | failed: {row['failed'].replace('|', '/')} | | | | | |")
            continue
        cells = [row["work"], str(row.get("batch", ""))]
        cells.append(f"{row['per_second']:.1f} {row['unit']}" if "per_second" in row else "")
        for key, form in (
            ("steps_per_second", ".2f"),
            ("tflops", ".3g"),
            ("mfu", ".1%"),
            ("memory_gib", ".1f"),
        ):
            cells.append(format(row[key], form) if row.get(key) is not None else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run the parts asked for; 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for gpu.md and gpu.json")
    parser.add_argument(
        "--seconds", type=float, default=480.0, help="what does not fit is left out, and said"
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--dry", action="store_true", help="small networks on the CPU")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.part is not None:
        print(json.dumps(PARTS[asked.part](asked.dry)))
        return 0
    begin, rows = time.monotonic(), list[Row]()
    for name in asked.only:
        left = asked.seconds - (time.monotonic() - begin)
        if left < 20:
            rows.append({"work": name, "failed": "left out, for want of time"})
            continue
        rows += run_part(name, asked.dry, min(PART_S, left))
        print(table(rows[-1:]).splitlines()[-1], flush=True)
    if asked.out is not None:
        asked.out.mkdir(parents=True, exist_ok=True)
        (asked.out / "gpu.md").write_text(table(rows) + "\n", encoding="utf-8")
        (asked.out / "gpu.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    failed = [row["work"] for row in rows if "failed" in row]
    print(
        f"{len(rows) - len(failed)} of {len(rows)} rows measured" + (f"; failed: {failed}" if failed else "")
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
