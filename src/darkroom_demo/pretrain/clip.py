"""The demo's CLIP: OpenAI's architecture and file format, small, trained in minutes on a CPU.

Its text tower is also the diffusion model's text encoder, so it must keep who has which colour and who is
where. Three things see to that: captions changed in one thing as extra negatives, captions that are true of
another picture of the batch taken out of its negatives, and heads (dropped afterwards) that read all facts
off both towers' outputs and off the text tower's penultimate hidden states.
"""

import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from darkroom_demo.pretrain.data import (
    MUTATIONS,
    Pool,
    alternatives,
    claimed_facts,
    describe,
    draw_claim,
    fact_index,
    long_claim,
    make_pool,
    mutate,
    reading_index,
    readings,
    relation_facts,
    say,
    shown_facts,
)
from darkroom_demo.pretrain.optimizers import muon, one_cycle
from darkroom_demo.pretrain.tokenizer import (
    CONTEXT_LENGTH,
    load_tokenizer,
    tokenize,
    write_json,
    write_tokenizer,
)
from darkroom_demo.pretrain.vae import to_tensor
from darkroom_demo.scenes import Scene

SIZE_PX = 64
MEAN = STD = (0.5, 0.5, 0.5)  # what `vae.to_tensor` does

NUM_STEPS = 1300
BATCH_SIZE = 128
MUON_LEARNING_RATE = 0.01
ADAM_LEARNING_RATE = 1.5e-3
FACT_WEIGHT = 0.3
RELATION_WEIGHT = 3.0  # relations are learned last
MAX_SHIFT_PX = 2


def build_clip(vocabulary: int) -> Any:
    """The untrained clip.model.CLIP (about 1.9 M parameters), float32."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pkg_resources is deprecated
        from clip.model import CLIP

    clip = CLIP(
        embed_dim=128,
        image_resolution=SIZE_PX,
        vision_layers=5,
        vision_width=128,
        vision_patch_size=8,
        context_length=CONTEXT_LENGTH,
        vocab_size=vocabulary,
        transformer_width=128,
        transformer_heads=2,
        transformer_layers=4,
    )
    for block in (*clip.visual.transformer.resblocks, *clip.transformer.resblocks):
        block.mlp.gelu = _QuickGELU()
    return clip


class _QuickGELU(nn.Module):
    """x sigmoid(1.702 x), as OpenAI's, in fewer passes over memory."""

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x * 1.702) * (1 / 1.702)


def train_clip(
    out_folder: Path, seed: int = 0, num_steps: int = NUM_STEPS, threads: int = 1, num_pictures: int = 25_000
) -> dict[str, float]:
    """Train the CLIP and write it, float16, with its tokenizer; returns `measure_clip`'s numbers.

    The weights are a function of the arguments (thread count included) on one kind of CPU; the committed ones
    are the defaults'.
    """
    torch.set_num_threads(threads)
    out_folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(out_folder)
    tokenizer = load_tokenizer(out_folder)
    pool = make_pool(num_pictures, [(SIZE_PX, SIZE_PX)], seed + 10, crop=False, num_workers=threads)
    torch.manual_seed(seed)
    towers = Towers(build_clip(len(tokenizer)))
    _run(towers, Batches(pool, tokenizer, seed), num_steps)
    save_clip(towers.clip, out_folder)
    return measure_clip(
        towers.clip.eval(), tokenizer, make_pool(2000, [(SIZE_PX, SIZE_PX)], seed + 11, crop=False)
    )


class Towers(nn.Module):
    """A CLIP with the heads that read facts during its training."""

    def __init__(self, clip: Any) -> None:
        super().__init__()
        self.clip = clip
        width, embed_dim, num_facts = (
            clip.ln_final.weight.shape[0],
            clip.text_projection.shape[1],
            len(fact_index()),
        )
        self.image_head = nn.Sequential(nn.Linear(embed_dim, 256), nn.GELU(), _rare(256, num_facts))
        self.text_head = nn.Sequential(nn.Linear(embed_dim, 256), nn.GELU(), _rare(256, num_facts))
        self.hidden_head = _rare(width, num_facts)
        self.reading_heads = nn.ModuleList(_rare(size, len(reading_index())) for size in (embed_dim, width))

    def encode_text(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled embeddings (n, embed_dim) and the mean penultimate hidden states of real tokens (n, width)."""
        clip, ends = self.clip, tokens.argmax(dim=-1)
        hidden = clip.token_embedding(tokens) + clip.positional_embedding[: tokens.shape[1]]
        hidden = hidden.transpose(0, 1)
        hidden = clip.transformer.resblocks[:-1](hidden)
        real = (torch.arange(tokens.shape[1]) <= ends[:, None]).T[..., None]
        penultimate = (F.layer_norm(hidden, hidden.shape[-1:]) * real).sum(0) / real.sum(0)
        hidden = clip.ln_final(clip.transformer.resblocks[-1](hidden)).transpose(0, 1)
        return hidden[torch.arange(len(tokens)), ends] @ clip.text_projection, penultimate


def _rare(width: int, num_facts: int) -> nn.Linear:
    """A layer that begins with what is true of most facts: they are absent."""
    layer = nn.Linear(width, num_facts)
    nn.init.constant_(layer.bias, -4.0)
    return layer


class Batches:
    """Random batches with hard negatives: `next()` gives pictures, tokens and the facts of both."""

    def __init__(self, pool: Pool, tokenizer: Any, seed: int) -> None:
        self.pictures = pool.pictures[SIZE_PX, SIZE_PX]
        self.items = pool.items[SIZE_PX, SIZE_PX]
        self.tokenizer = tokenizer
        self.rng = np.random.default_rng((seed, 3))
        self.shown = multi_hot([shown_facts(item) for item in self.items])

    def next(self, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """pictures (n, 3, 64, 64), tokens (n + h, length), shown (n, facts), claimed and readings (n + h, ...).

        The first n captions belong to the n pictures; the h others are those captions changed in one thing.
        """
        chosen = self.rng.integers(len(self.items), size=size)
        told, changed = [], []
        for at in chosen:
            text, facts, claim = describe(self.items[at], self.rng)
            told.append((text, facts, readings(claim) if claim else []))
            if claim:
                other = mutate(claim, self.rng)
                changed.append(
                    (say(other, photo=claim.ground is None), claimed_facts(other), readings(other))
                )
        texts, claimed, read = (list(column) for column in zip(*told, *changed, strict=True))
        tokens = tokenize(self.tokenizer, texts)
        tokens = tokens[:, : int(tokens.argmax(-1).max()) + 1]
        pictures = to_tensor(_shift(self.pictures[chosen], self.rng))
        shown = self.shown[torch.from_numpy(chosen)]
        return pictures, tokens, shown, multi_hot(claimed), multi_hot(read, len(reading_index()))


def make_optimizers(towers: Towers) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the transformer blocks; AdamW for everything else."""
    inner = [p for name, p in towers.named_parameters() if p.ndim == 2 and ".resblocks." in name]
    taken = {id(p) for p in inner}
    rest = [p for p in towers.parameters() if id(p) not in taken]
    adam = torch.optim.AdamW(rest, lr=ADAM_LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0)
    return [muon(inner, MUON_LEARNING_RATE), adam]


def _run(towers: Towers, stream: Batches, num_steps: int) -> None:
    optimizers = make_optimizers(towers)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, one_cycle(num_steps)) for optimizer in optimizers
    ]
    start, sums = time.monotonic(), torch.zeros(4)
    for step in range(1, num_steps + 1):
        numbers = losses(towers, *stream.next(BATCH_SIZE))
        (numbers[0] + FACT_WEIGHT * (numbers[1] + numbers[2])).backward()
        nn.utils.clip_grad_norm_(towers.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()
        with torch.no_grad():
            towers.clip.logit_scale.clamp_(0, float(np.log(100)))
        sums += torch.stack(numbers).detach()
        if step % 50 == 0 or step == num_steps:
            contrast, image, text, accuracy = (sums / (step % 50 or 50)).tolist()
            speed = step * BATCH_SIZE / (time.monotonic() - start)
            print(f"clip {step}/{num_steps} contrastive {contrast:.3f} facts {image:.3f} {text:.3f}"
                  f" top-1 {accuracy:.3f} {speed:.0f} pictures/s", flush=True)  # fmt: skip
            sums.zero_()


def losses(
    towers: Towers, pictures: Tensor, tokens: Tensor, shown: Tensor, claimed: Tensor, read: Tensor
) -> tuple[Tensor, ...]:
    """(contrastive loss, image fact loss, text fact loss, top-1 accuracy of picture to caption)."""
    num_pictures = len(pictures)
    # Here the plain attention's backward pass is several times faster than the fused one's.
    with torch.autocast("cpu", dtype=torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
        image = towers.clip.visual(pictures)
        text, penultimate = towers.encode_text(tokens)
        image_facts, text_facts = towers.image_head(image), towers.text_head(text)
        hidden_facts = towers.hidden_head(penultimate)
        readings_of = [head(x) for head, x in zip(towers.reading_heads, (text, penultimate), strict=True)]
    # A caption is true of a picture that shows all that it claims; only the picture's own counts as positive.
    true = claimed.float() @ (~shown).float().T < 0.5
    own = torch.eye(len(tokens), num_pictures, dtype=torch.bool)
    logits = (
        F.normalize(text.float(), dim=-1)
        @ F.normalize(image.float(), dim=-1).T
        * towers.clip.logit_scale.exp()
    )
    logits = logits.masked_fill(true & ~own, -1e4)
    target = torch.arange(num_pictures)
    contrastive = (F.cross_entropy(logits.T, target) + F.cross_entropy(logits[:num_pictures], target)) / 2
    accuracy = (logits.T.argmax(-1) == target).float().mean()
    in_text = _fact_loss(text_facts, claimed) + _fact_loss(hidden_facts, claimed)
    # Who is where or what is an exclusive or of order and word: neither helps alone, so both are asked for.
    in_text = in_text + sum(_presence_loss(found, read) for found in readings_of)
    return contrastive, _fact_loss(image_facts, shown), in_text, accuracy


def _fact_loss(logits: Tensor, facts: Tensor) -> Tensor:
    weight = torch.ones(facts.shape[1])
    weight[relation_facts()] = RELATION_WEIGHT
    return _presence_loss(logits, facts, weight)


def _presence_loss(logits: Tensor, present: Tensor, weight: Tensor | None = None) -> Tensor:
    """Binary cross entropy, in nats a picture or caption over ten: few of the many facts are ever present."""
    loss = F.binary_cross_entropy_with_logits(logits.float(), present.float(), weight, reduction="sum")
    return loss / len(present) / 10


def multi_hot(facts: list[list[int]], num_facts: int | None = None) -> Tensor:
    """Lists of facts (or readings) -> bool (n, num_facts)."""
    hot = torch.zeros(len(facts), num_facts or len(fact_index()), dtype=torch.bool)
    for row, present in enumerate(facts):
        hot[row, present] = True
    return hot


def _shift(pictures: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Pictures moved by up to MAX_SHIFT_PX, the border repeated."""
    padded = np.pad(pictures, ((0, 0), (MAX_SHIFT_PX,) * 2, (MAX_SHIFT_PX,) * 2, (0, 0)), mode="edge")
    moves = rng.integers(2 * MAX_SHIFT_PX + 1, size=(len(pictures), 2))
    rows, columns = pictures.shape[1:3]
    return np.stack([p[y : y + rows, x : x + columns] for p, (y, x) in zip(padded, moves, strict=True)])


def save_clip(clip: Any, out_folder: Path) -> None:
    """Write the weights, float16, and what preprocessing does."""
    from safetensors.torch import save_file

    state = {name: tensor.detach().half().contiguous() for name, tensor in clip.state_dict().items()}
    save_file(state, out_folder / "model.safetensors")
    size = {"height": SIZE_PX, "width": SIZE_PX}
    flags = {"do_resize": True, "do_center_crop": False, "do_rescale": True, "do_normalize": True}
    numbers = {"size": size, "resample": 3, "rescale_factor": 1 / 255, "image_mean": MEAN, "image_std": STD}
    write_json(out_folder / "preprocessor_config.json", {**flags, **numbers, "do_convert_rgb": True})


@torch.no_grad()
def measure_clip(
    clip: Any, tokenizer: Any, pool: Pool, num_each: int = 200, seed: int = 0
) -> dict[str, float]:
    """Share of a pool's scenes whose true caption scores above all false ones, by what the false ones change.

    The false captions: the 4 other shapes, 5 other colours, 3 other counts, 3 other relations, or the two
    colours exchanged; "caption" has the long captions of 99 other scenes, without those that are true as well.
    """
    rng = np.random.default_rng(seed)
    pictures, items = pool.pictures[SIZE_PX, SIZE_PX], pool.items[SIZE_PX, SIZE_PX]
    scenes = [(i, item.scene) for i, item in enumerate(items) if item.scene]
    numbers: dict[str, float] = {}
    for kind in (*MUTATIONS, "caption"):
        hits: list[bool] = []
        for i, scene in scenes:
            texts = _choices(kind, scene, [other for _, other in scenes], rng)
            if len(hits) == num_each:
                break
            if len(texts) < 2:
                continue
            image = F.normalize(clip.encode_image(to_tensor(pictures[i : i + 1])), dim=-1)
            text = F.normalize(clip.encode_text(tokenize(tokenizer, texts)), dim=-1)
            hits.append(int((text @ image[0]).argmax()) == 0)
        numbers[kind] = float(np.mean(hits))
    return numbers


def _choices(kind: str, scene: Scene, others: list[Scene], rng: np.random.Generator) -> list[str]:
    """The true caption of a scene, then false ones; fewer than two if a scene has none of this kind."""
    shown = set(claimed_facts(long_claim(scene)))
    if kind == "caption":
        claim = long_claim(scene)
        wrong = [long_claim(others[i]) for i in rng.choice(len(others), size=99, replace=False)]
    else:
        claim = draw_claim(scene, rng)
        if kind == "relation" and not claim.relation:
            return []
        wrong = alternatives(claim, kind)
    false = sorted({say(w, photo=w.ground is None) for w in wrong if not shown.issuperset(claimed_facts(w))})
    return [say(claim, photo=claim.ground is None), *false]
