"""Scores of scorers with a model, alone and at once: ours, the same weights in plain loops, and data-juicer's.

The CLIP and the classifier (a ViT) are transformers' with random weights, about a third of a ViT-B/32 in width. A
plain loop opens a picture, asks the processor and the model for it alone, and takes the next one, as the models'
pages show; data-juicer's operators (image_text_similarity_filter, image_watermark_filter) do so too. All models
are loaded beforehand. Scores must be ours up to what resizing differently makes of them.

    python speed/scoring.py
    python speed/scoring.py --size small --repeats 3
"""

import os
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import race
from pictures import photograph
from PIL import Image
from race import OURS, Figure, Race, Result, Side, Sizes, Work

from darkroom.components.base import Component

SIDE_PX = 224
PICTURE_PX = 512
CAPTION = (
    "a photo of {} that someone took from the side, in the evening, with much light behind it, number {}"
)
NAMES = (
    *("an astronaut", "a cat", "a cup of coffee", "a rocket"),
    *("an eye", "galaxies", "some cells", "a motorcycle"),
)
# Scores may differ by so much of their spread, and have at least this correlation.
TOLERANCE, LEAST_CORRELATION = 0.3, 0.99
DEMO_CLIP = race.ROOT / "src/darkroom_demo/components/clip"


def told(number: int) -> str:
    """The caption of a picture; no two are the same."""
    return CAPTION.format(NAMES[number % len(NAMES)], number)


def prepare(folder: Path, sizes: Sizes) -> None:
    """Pictures, as files and as a part; both models."""
    import polars as pl

    from darkroom import store

    (folder / "files").mkdir()
    rows, members = [], []
    for number in range(sizes["pictures"]):
        picture = photograph(number)
        picture.thumbnail((PICTURE_PX, PICTURE_PX))
        path = folder / f"files/{number}.jpg"
        picture.save(path, quality=95)
        members.append((f"{number:032x}.jpg", path.read_bytes()))
        caption = told(number)
        rows.append({"uid": f"{number:032x}", "row": number, "status": "ok", "caption": caption})
    spans = store.write_tar(folder / "part.tar", members)
    for row, (name, _) in zip(rows, members, strict=True):
        row["offset"], row["size"] = spans[name]
    store.write_table(folder / "part.parquet", pl.DataFrame(rows))
    _write_clip(folder / "clip")
    _write_classifier(folder / "image_classifier")


def _write_clip(folder: Path) -> None:
    import torch
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(DEMO_CLIP)
    size = {"num_hidden_layers": 6, "hidden_size": 256, "intermediate_size": 1024, "num_attention_heads": 4}
    text = {**size, "vocab_size": len(tokenizer), "max_position_embeddings": 77, "projection_dim": 256,
            "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}  # fmt: skip
    vision = {**size, "image_size": SIDE_PX, "patch_size": 32, "projection_dim": 256}
    # data-juicer takes it that logits are cosines times 100.
    config = CLIPConfig(
        text_config=text, vision_config=vision, projection_dim=256, logit_scale_init_value=float(np.log(100))
    )
    CLIPModel(config).save_pretrained(folder)
    tokenizer.model_max_length = 77
    images = CLIPImageProcessor(
        size={"shortest_edge": SIDE_PX}, crop_size={"height": SIDE_PX, "width": SIDE_PX}
    )
    CLIPProcessor(images, tokenizer).save_pretrained(folder)
    tokenizer.save_vocabulary(str(folder))


def _write_classifier(folder: Path) -> None:
    import torch
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    torch.manual_seed(0)
    labels = {0: "clean", 1: "watermark"}
    config = ViTConfig(
        hidden_size=256, num_hidden_layers=6, num_attention_heads=4, intermediate_size=1024, image_size=SIDE_PX,
        patch_size=32, id2label=labels, label2id={label: place for place, label in labels.items()},
        initializer_range=0.2,
    )  # fmt: skip
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": SIDE_PX, "width": SIDE_PX}).save_pretrained(folder)


def files(folder: Path, sizes: Sizes) -> list[tuple[str, str]]:
    """(path, caption) of every picture."""
    return [(str(folder / f"files/{number}.jpg"), told(number)) for number in range(sizes["pictures"])]


def work(run: Callable[[], Any]) -> Work:
    return Work(run, run)


def components(folder: Path) -> dict[str, Component]:
    """Those that scorers name, by kind; each is loaded once, whoever asks."""
    from darkroom.components import clip, image_classifier

    made = {kind: Component(kind=kind, path=str(folder / kind)) for kind in ("clip", "image_classifier")}
    loaded = clip.load_clip(made["clip"]).on_fastest_device()
    clip.load_clip = lambda component: loaded
    classifier = image_classifier.load_image_classifier(made["image_classifier"])
    image_classifier.load_image_classifier = lambda component: classifier
    return made


# Of each scorer the options that name components.
OPTIONS: dict[str, dict[str, Any]] = {
    "clip_similarity": {"clip": "clip"},
    "watermark": {"model": "image_classifier", "classes": ["watermark"]},
}


def ours(folder: Path, sizes: Sizes, scorers: tuple[str, ...]) -> Work:
    """The scorers over the part, in one pass, with their models loaded once."""
    from darkroom.score import Asked, score_in_one_pass
    from darkroom.store import read_table

    made = components(folder)
    asked = []
    for scorer in scorers:
        named = {name: made[name] for name in OPTIONS[scorer].values() if isinstance(name, str)}
        asked.append(Asked(scorer, OPTIONS[scorer], folder / f"{scorer}.parquet", "", named))

    def run() -> list[list[float]]:
        for scored in score_in_one_pass(asked, folder / "part.parquet", folder / "part.tar"):
            if isinstance(scored, Exception):
                raise scored
        return [list(read_table(of.out).sort("row")[of.scorer]) for of in asked]

    return work(run)


def one_by_one(folder: Path, sizes: Sizes, loops: tuple[Callable[[Path, Sizes], Work], ...]) -> Work:
    """One loop after another, as scripts are run."""
    works = [loop(folder, sizes) for loop in loops]
    return work(lambda: [of.run() for of in works])


def plain_similarity(folder: Path, sizes: Sizes) -> Work:
    import torch
    from transformers import CLIPModel, CLIPProcessor

    model = CLIPModel.from_pretrained(folder / "clip").eval()
    processor = CLIPProcessor.from_pretrained(folder / "clip")

    @torch.no_grad()
    def run() -> list[float]:
        found = []
        for path, caption in files(folder, sizes):
            image = Image.open(path).convert("RGB")
            inputs = processor(text=[caption], images=[image], return_tensors="pt", padding=True)
            found.append(float(model(**inputs).logits_per_text) / 100)
        return found

    return work(run)


def plain_classifier(folder: Path, sizes: Sizes) -> Work:
    import torch
    from transformers import ViTForImageClassification, ViTImageProcessor

    model = ViTForImageClassification.from_pretrained(folder / "image_classifier").eval()
    processor = ViTImageProcessor.from_pretrained(folder / "image_classifier")

    @torch.no_grad()
    def run() -> list[float]:
        found = []
        for path, _ in files(folder, sizes):
            inputs = processor(images=Image.open(path).convert("RGB"), return_tensors="pt")
            found.append(float(model(**inputs).logits.softmax(dim=-1)[0, 1]))
        return found

    return work(run)


def juicer(folder: Path, sizes: Sizes, scorer: str) -> Work:
    """data-juicer's operator, sample by sample as its executor calls it."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from data_juicer.ops.filter.image_text_similarity_filter import ImageTextSimilarityFilter
    from data_juicer.ops.filter.image_watermark_filter import ImageWatermarkFilter
    from data_juicer.utils.constant import Fields, StatsKeys
    from data_juicer.utils.mm_utils import SpecialTokens

    if scorer == "clip_similarity":
        operator, key = (
            ImageTextSimilarityFilter(hf_clip=str(folder / "clip")),
            StatsKeys.image_text_similarity,
        )
    else:
        operator = ImageWatermarkFilter(hf_watermark_model=str(folder / "image_classifier"))
        key = StatsKeys.image_watermark_prob

    def run() -> list[float]:
        import torch

        found = []
        with torch.no_grad():
            for path, caption in files(folder, sizes):
                text = f"{SpecialTokens.image} {caption} {SpecialTokens.eoc}"
                sample = {"text": text, "images": [path], Fields.stats: {}}
                found.append(float(operator.compute_stats_single(sample)[Fields.stats][key][0]))
        return found

    return work(run)


def same(mine: list[list[float]], others: list[list[float]]) -> str | None:
    """The first scorer whose scores are not the same."""
    found = (alike(*pair) for pair in zip(mine, others, strict=True))
    return next((wrong for wrong in found if wrong), None)


def alike(mine: list[float], other: list[float]) -> str | None:
    """Whether scores are the same up to TOLERANCE of their spread, and go up and down together."""
    spread, apart = float(np.std(mine)), float(np.max(np.abs(np.subtract(mine, other))))
    alike = float(np.corrcoef(mine, other)[0, 1])
    if apart <= TOLERANCE * spread and alike >= LEAST_CORRELATION:
        return None
    return f"scores differ by {apart:.4f}, of a spread of {spread:.4f}; correlation {alike:.4f}"


PLAIN, JUICER = "plain loop", "data-juicer"
LOOPS = {
    "clip_similarity": plain_similarity,
    "watermark": plain_classifier,
}


def race_of(*scorers: str) -> Race:
    """Of scorers that work at once."""
    loops = tuple(LOOPS[scorer] for scorer in scorers)
    operators = tuple(partial(juicer, scorer=scorer) for scorer in scorers)
    # In tests all at once: that is each of them too.
    smallest = {"smallest": {"pictures": 8}} if scorers == tuple(LOOPS) else {}
    return Race(
        title=" + ".join(scorers),
        told=lambda sizes: f"{sizes['pictures']} pictures of {PICTURE_PX} px",
        sizes={**smallest, "small": {"pictures": 64}, "large": {"pictures": 256}},
        prepare=prepare,
        same=same,
        sides=(
            Side(OURS, partial(ours, scorers=scorers)),
            Side(PLAIN, partial(one_by_one, loops=loops), 1.5),
            Side(JUICER, partial(one_by_one, loops=operators), 1.5, peer="data-juicer"),
        ),
    )


RACES = {race.title: race for race in (*map(race_of, LOOPS), race_of(*LOOPS))}


def run_races(title: str, races: Mapping[str, Race], doc: str | None) -> None:
    """Races that read the same, one after another, as one row: those that have the size."""
    asked = race.arguments(doc)
    races = {scorer: of for scorer, of in races.items() if asked.size in of.sizes}
    # A process of one side is told by its name, and which scorer by the environment.
    scorer = os.environ.get("SPEED_SCORER", "")
    if asked.side is not None:
        sizes = races[scorer].sizes[asked.size]
        race.serve(next(side for side in races[scorer].sides if side.name == asked.side), asked.folder, sizes)
        return
    result, first = Result(title, "", []), next(iter(races.values()))
    with tempfile.TemporaryDirectory(prefix="speed-") as name:
        first.prepare(Path(name), first.sizes[asked.size])
        for scorer, of in races.items():
            os.environ["SPEED_SCORER"] = scorer
            found = race.measure(of, asked, Path(name))
            result.told = found.told
            result.figures += [_named(scorer, figure) for figure in found.figures]
            result.seconds |= {f"{scorer}, {side}": seconds for side, seconds in found.seconds.items()}
            result.wrong += [f"{scorer}: {wrong}" for wrong in found.wrong]
    race.end(result, asked.json)


def _named(scorer: str, figure: Figure) -> Figure:
    figure.what = f"{scorer}, {figure.what}"
    return figure


if __name__ == "__main__":
    run_races("scores", RACES, __doc__)
