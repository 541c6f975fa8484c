"""Training steps on cached latents: ours, uncompiled and compiled, against a loop of diffusers and accelerate.

The same network with the same weights, the same batches in a row: forward, backward, clipping, AdamW and the
average of the weights. Losses have to agree to 1e-3. Of the compiled side the compilation is not timed.

    python speed/train_step.py
"""

import copy
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import race
from race import OURS, Race, Side, Sizes, Work

LIMIT, NUM_CHECKED = 1e-3, 3


class Samples:
    """Random latents and captions of one bucket, all captions of one length."""

    captions: tuple[str, ...] = ("original",)

    def __init__(self, side: int, pooled: int) -> None:
        import numpy as np

        self.side, self.pooled = side, pooled
        self.uids = {(8 * side, 8 * side): np.arange(512, dtype=np.uint64).reshape(-1, 2)}

    @property
    def sizes(self) -> dict[str, Any]:
        return {"latent_channels": 4, "text_dim": 64, "pooled_dim": self.pooled}

    def latent_shape(self, bucket: Any) -> tuple[int, ...]:
        return (4, self.side, self.side)

    def gather(self, bucket: Any, places: Any, captions: Any, tags: Any = None) -> Any:
        """See `train.data.SampleSource`; a function of the places."""
        import torch

        from darkroom.families.conditioning import Conditioning
        from darkroom.train.data import Samples as Found

        generator = torch.Generator().manual_seed(int(places[0]))
        num = len(places)
        latents, text, pooled = (
            torch.randn(num, *shape, generator=generator)
            for shape in ((4, self.side, self.side), (16, 64), (self.pooled,))
        )
        return Found(latents, Conditioning((text,), (None,), pooled))


class Trained:
    """A network, its settings and its batches, which all sides make alike."""

    def __init__(self, sizes: Sizes) -> None:
        import torch

        from darkroom.config.model import read_model
        from darkroom.config.run import Train
        from darkroom.models.families import build_denoiser

        torch.set_num_threads(1)
        width, batch = sizes["width"], sizes["batch"]
        section = {
            "family": "mmdit", "num_blocks": sizes["blocks"], "num_heads": width // 64, "head_dim": 64,
            "patch_size": 1,
        }  # fmt: skip
        self.samples = Samples(sizes["side"], 64)
        self.model = build_denoiser(read_model(section), self.samples.sizes, seed=0).train()
        with torch.no_grad():  # those that begin at zero too, or nothing would reach the blocks
            generator = torch.Generator().manual_seed(0)
            for weight in self.model.parameters():
                if weight.ndim > 1 and not weight.any():
                    weight.normal_(std=0.02, generator=generator)
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.settings = Train(
            num_steps=10_000, global_batch_size=batch, microbatch_size=batch, dtype="bfloat16",
            learning_rate_decay="constant", compile="on",
        )  # fmt: skip
        self.num_steps = sizes["steps"]

    def batches(self) -> Any:
        """step -> its batch."""
        from darkroom.train.loader import BatchMaker
        from darkroom.train.plan import BatchPlan

        plan = BatchPlan(0, self.settings.global_batch_size, self.samples.uids)
        return BatchMaker(self.samples, plan, self.settings, 0)


def work(trained: Trained, step: Callable[[Any], float]) -> Work:
    """Losses of the first steps, and then steps over batches that are ready."""
    batches = trained.batches()
    ready = [batches.make(number) for number in range(max(NUM_CHECKED, trained.num_steps))]

    def run() -> None:
        for batch in ready[: trained.num_steps]:
            step(batch)

    return Work(run, lambda: [step(batch) for batch in ready[:NUM_CHECKED]])


def ours(folder: Path, sizes: Sizes, is_compiled: bool = False) -> Work:
    import torch

    from darkroom.train.compiled import compiling
    from darkroom.train.distributed import Ranks
    from darkroom.train.step import Stepper, make_optimizers

    trained = Trained(sizes)
    model, settings = trained.model, trained.settings
    stepper = Stepper(model, make_optimizers(model, settings), trained.average, settings)
    if is_compiled:
        # For the life of this process: nothing else runs in it.
        ready = compiling(model, trained.samples, settings, Ranks(), torch.device("cpu"), _tell)
        ready.__enter__()
        KEPT.append(ready)
    size = settings.global_batch_size
    return work(trained, lambda batch: float(stepper.step(batch)[0]) / size)


KEPT: list[Any] = []


def _tell(line: str) -> None:
    print(line, file=sys.stderr)


def loop(folder: Path, sizes: Sizes) -> Work:
    """As diffusers' examples of training do it: accelerate's autocast and clipping, AdamW, EMAModel."""
    import torch
    from accelerate import Accelerator
    from diffusers.training_utils import EMAModel

    trained = Trained(sizes)
    accelerator = Accelerator(mixed_precision="bf16", cpu=True)
    settings, network = trained.settings, trained.model.network
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, betas=settings.betas, eps=settings.epsilon,
        weight_decay=settings.weight_decay,
    )  # fmt: skip
    average = EMAModel(network.parameters(), decay=settings.ema_decay)
    prepared, optimizer = accelerator.prepare(network, optimizer)

    def step(batch: Any) -> float:
        time = torch.sigmoid(batch.timestep_normal)
        share = time.view(-1, 1, 1, 1)
        noisy = (1 - share) * batch.latents + share * batch.noise
        text = batch.conditioning.text[0]
        output = prepared(noisy, time, text, None, batch.conditioning.pooled)
        target = batch.noise - batch.latents
        loss = torch.nn.functional.mse_loss(output.float(), target.float())
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(network.parameters(), settings.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        average.step(network.parameters())
        return loss.item()

    return work(trained, step)


def same(ours: list[float], theirs: list[float]) -> str | None:
    """To LIMIT, of each loss."""
    gap = max(abs(theirs[k] / ours[k] - 1) for k in range(len(ours)))
    return f"losses {theirs}, ours {ours}, off by {gap:.1e}" if gap > LIMIT else None


SMALL: Sizes = {"width": 384, "blocks": 6, "side": 16, "batch": 8, "steps": 2}
RACE = Race(
    title="training step of an MMDiT of 31 M",
    told=lambda sizes: f"{sizes['steps']} steps of {sizes['batch']} in bfloat16, {8 * sizes['side']} px",
    sizes={
        "smallest": {**SMALL, "width": 64, "blocks": 1, "side": 8, "batch": 2, "steps": 1},
        "small": SMALL,
        "large": {**SMALL, "steps": 4},
    },
    sides=(
        Side(OURS, partial(ours, is_compiled=True)),
        Side("darkroom, uncompiled", ours, 1.0),
        Side("diffusers + accelerate", loop, 1.3),
    ),
    same=same,
)

if __name__ == "__main__":
    race.main(RACE, __doc__)
