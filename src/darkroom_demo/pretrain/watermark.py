"""The demo's judge of watermarks: a ResNet of transformers with two classes, trained in minutes on a CPU.

Half of its pictures bear a text that nobody has written before, drawn as `encode.watermarked` draws those of the
demo world; all are reduced to one size by the image processor that lies beside the weights.
"""

import string
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from darkroom_demo import digits, encode, photos
from darkroom_demo.pretrain.optimizers import one_cycle
from darkroom_demo.render import render
from darkroom_demo.scenes import sample_scene

SIZE_PX = 128
# The demo's, of the probability.
THRESHOLD = 0.7
LABELS = ("clean", "watermarked")
SIDES_PX = (64, 512)
KIND_SHARES = {"scene": 0.7, "digit": 0.15, "photo": 0.15}

NUM_STEPS = 700
BATCH_SIZE = 32
LEARNING_RATE = 2e-3
MAX_SHIFT_PX = 6


def build_classifier() -> Any:
    """The untrained ResNetForImageClassification (about 0.3 M parameters), float32."""
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 32, 64, 96],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        downsample_in_first_stage=False,
        id2label=dict(enumerate(LABELS)),
        label2id={label: place for place, label in enumerate(LABELS)},
    )
    return ResNetForImageClassification(config)


def build_processor() -> Any:
    """Pictures become SIZE_PX squares, whatever their shape, with values in [-1, 1]."""
    from transformers import ViTImageProcessor

    return ViTImageProcessor(
        size={"height": SIZE_PX, "width": SIZE_PX},
        resample=2,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )


def draw_picture(rng: np.random.Generator) -> np.ndarray:
    """A random picture of the demo world, uint8 (height, width, 3)."""
    kind = str(rng.choice(list(KIND_SHARES), p=list(KIND_SHARES.values())))
    if kind == "digit":
        return digits.sample_digits(rng, sides_px=SIDES_PX)[0]
    if kind == "photo":
        return photos.sample_photo(rng, sides_px=SIDES_PX)[0]
    return render(sample_scene(rng, sides_px=SIDES_PX, held_out=None))


def draw_text(rng: np.random.Generator) -> str:
    """One to three words of random letters, as long as watermarks are."""
    letters = string.ascii_letters + string.digits + "().-"
    words = [
        "".join(rng.choice(list(letters), int(rng.integers(3, 9)))) for _ in range(int(rng.integers(1, 4)))
    ]
    return " ".join(words)[:20].strip().ljust(8, ".")


def make_pictures(number: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(n, 3, SIZE_PX, SIZE_PX) as the processor gives them, and (n,) whether each bears a watermark."""
    processor, found = build_processor(), []
    is_marked = np.zeros(number, np.int64)
    for index in range(number):
        rng = np.random.default_rng((seed, index))
        picture = draw_picture(rng)
        # A mark on a picture that is hardly wider than its letters is not legible, and none of the world has one.
        is_marked[index] = min(picture.shape[:2]) >= 96 and rng.random() < 0.6
        if is_marked[index]:
            picture = encode.watermarked(picture, draw_text(rng))
        found.append(processor(images=picture, return_tensors="pt")["pixel_values"])
    return torch.cat(found), torch.from_numpy(is_marked)


def train_watermark(
    out_folder: Path, seed: int = 0, num_steps: int = NUM_STEPS, threads: int = 1, num_pictures: int = 6_000
) -> dict[str, float]:
    """Train the classifier and write it, float16, as a folder of transformers; returns `measure_watermark`'s.

    The weights are a function of the arguments (thread count included) on one kind of CPU; the committed ones
    are the defaults'.
    """
    torch.set_num_threads(threads)
    pictures, is_marked = make_pictures(num_pictures, seed)
    torch.manual_seed(seed)
    model = build_classifier().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, one_cycle(num_steps))
    rng, start, total = np.random.default_rng((seed, 1)), time.monotonic(), 0.0
    for step in range(1, num_steps + 1):
        chosen = torch.from_numpy(rng.integers(len(pictures), size=BATCH_SIZE))
        shift = rng.integers(-MAX_SHIFT_PX, MAX_SHIFT_PX + 1, 2)
        batch = pictures[chosen].roll(shift.tolist(), dims=(2, 3))
        loss = F.cross_entropy(model(pixel_values=batch).logits, is_marked[chosen], label_smoothing=0.02)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        total += loss.item()
        if step % 100 == 0 or step == num_steps:
            speed = step * BATCH_SIZE / (time.monotonic() - start)
            mean = total / (step % 100 or 100)
            print(f"watermark {step}/{num_steps} loss {mean:.4f} {speed:.0f} pictures/s", flush=True)
            total = 0.0
    model.eval().half().save_pretrained(out_folder)
    build_processor().save_pretrained(out_folder)
    return measure_watermark(model.float(), seed + 1)


@torch.no_grad()
def measure_watermark(model: Any, seed: int, number: int = 600) -> dict[str, float]:
    """Recall, and the share of clean pictures that are taken for marked ones, above THRESHOLD."""
    pictures, is_marked = make_pictures(number, seed)
    likely = torch.cat([model(pixel_values=part).logits.softmax(dim=1)[:, 1] for part in pictures.split(64)])
    found = (likely > THRESHOLD).float()
    return {
        "recall": float(found[is_marked == 1].mean()),
        "false_alarms": float(found[is_marked == 0].mean()),
    }
