"""A small made-up run in the stages' file formats, for the report's tests."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import polars as pl
from PIL import Image

from darkroom.report.build import DatasetInputs, ReportInputs
from darkroom.store import read_table, write_json, write_manifest, write_table, write_tar
from darkroom.store.drawn import write_chunk
from darkroom.train.goodput import Account
from darkroom.train.speeds import BucketSpeed, Speeds
from darkroom_demo.captions import long_caption, short_caption
from darkroom_demo.prompts import prompt_records
from darkroom_demo.render import render
from darkroom_demo.scenes import sample_scene
from darkroom_demo.source import SPEC

HOSTILE = '<script>alert(\'x\')</script><img src="http://evil.example/a.png" onerror="alert(1)">'
STAGES = (
    "download",
    "score",
    "filter",
    "recaption",
    "bucket",
    "cache",
    "train",
    "draw",
    "measure",
    "evaluate",
)


def make_inputs(root: Path, num_samples: int = 24, prompts_per_task: int = 2) -> ReportInputs:
    """Write every input below `root`; the first sample's alt-text, a status and a reason are hostile."""
    rng = np.random.default_rng(5)
    return ReportInputs(
        run="demo",
        datasets=[DatasetInputs("demo", **_data(root, rng, num_samples))],
        description="A small MMDiT with rectified flow, trained from scratch on the demo world",
        **_evaluation(root, prompts_per_task),
        **_training(root, rng),
        manifests=_manifests(root),
        config={"run": {"seed": 0, "note": HOSTILE}, "dataset": {"rows_per_part": 1400}},
    )


def _evaluation(root: Path, prompts_per_task: int) -> dict:
    rng = np.random.default_rng(1)
    records, seen = [], {}
    for index, record in enumerate(prompt_records()):
        seen[record["tag"]] = seen.get(record["tag"], 0) + 1
        if seen[record["tag"]] <= prompts_per_task:
            records.append((index, record))
    tables = []
    for model in ("trained", "untrained"):
        tar, table = (root / f"pictures/{model}/chunk-00000.{ending}" for ending in ("tar", "parquet"))
        write_chunk(model, _pictures(model, records, rng), tar, table)
        tables.append(read_table(table))
    drawn = pl.concat(tables)
    correct = [model == "trained" and rng.random() < 0.7 for model in drawn["model"]]
    reasons = [
        "" if right else f"expected triangle>=1, found 0 {HOSTILE if k == 3 else ''}"
        for right, k in zip(correct, drawn["picture"], strict=True)
    ]
    judged = drawn.with_columns(
        correct=pl.Series(correct),
        reason=pl.Series(reasons),
        detections=pl.lit("[]"),
        clip_score=pl.lit(25.0),
    )
    write_table(root / "prompts.parquet", judged, sort_by=None)
    tasks = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
    good = dict(
        zip(("overall", "micro", *tasks), (0.68, 0.62, 0.95, 0.81, 0.5, 0.75, 0.44, 0.63), strict=True)
    )
    metrics = {
        "trained": _scores(good, 0.09, 27.31, 0.0421, 0.00312),
        "untrained": _scores(dict.fromkeys(good, 0.02), 0.02, 18.2, 0.7312, 0.0912),
        "difference": _scores({k: v - 0.02 for k, v in good.items()}, 0.1, 9.11, -0.6891, -0.08808),
        "protocol": {
            "seed": 0,
            "sampling": {"guidance_scale": 3.0, "num_inference_steps": 16},
            "frechet_clip_distance": {
                "definition": "frechet, demo-clip, bicubic 64 px, 1000 real, 252 generated"
            },
            "prompts": {"name": "demo", "number": 63, "sha256": "5c48e0813e81" + "0" * 52},
        },
    }
    write_json(root / "metrics.json", metrics)
    return {
        "metrics": root / "metrics.json",
        "prompts": root / "prompts.parquet",
        "pictures": root / "pictures",
    }


def _pictures(model: str, records: list, rng: np.random.Generator) -> Iterator:
    for index, record in records:
        pictures = []
        for _ in range(4):
            scene = sample_scene(rng, task=record["tag"], sides_px=(64, 64), held_out=None)
            picture = cv2.resize(render(scene), (64, 64), interpolation=cv2.INTER_AREA)
            if model == "untrained":
                picture = rng.integers(90, 170, (64, 64, 3), dtype=np.uint8)
            pictures.append(picture)
        yield index, record, [0, 1, 2, 3], np.stack(pictures)


def _scores(shares: dict, half: float, clip: float, frechet: float, kernel: float) -> dict:
    geneval = dict(shares)
    for name, value in shares.items():
        geneval[f"{name}_low"], geneval[f"{name}_high"] = max(0, value - half), min(1, value + half)
    return {
        "geneval": geneval, "clip_score": clip, "clip_score_low": clip - 1, "clip_score_high": clip + 1,
        "frechet_clip_distance": frechet, "kernel_clip_distance": kernel,
    }  # fmt: skip


def _data(root: Path, rng: np.random.Generator, number: int) -> dict:
    members, captions, truth = [], [], []
    wrong = sample_scene(rng)
    alt_texts = [HOSTILE, "", "Buy 3x Premium Star Sticker | ShapeShop.example", "IMG_20140312_084.jpg"]
    for i in range(number):
        scene = sample_scene(rng)
        uid = f"{i:032x}"
        jpeg = cv2.imencode(".jpg", render(scene)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
        members.append((f"{uid}.jpg", jpeg))
        long = long_caption(wrong if i == 5 else scene)
        captions.append(
            {"uid": uid, "row": i, "caption_original": (alt_texts + [long_caption(scene)])[i % 5],
             "caption_long": long, "caption_short": short_caption(scene), "long_finish_reason": "stop",
             "short_finish_reason": "length" if i == 7 else "stop", "long_flags": ["repetition"] if i == 5 else [],
             "short_flags": [], "model": "demo-captioner"}
        )  # fmt: skip
        truth.append({"row": i, "kind": "scene", "scene": json.dumps(scene.to_record())})
    spans = write_tar(root / "part-00000.tar", members)
    table = pl.DataFrame(captions).select("uid", "row").with_columns(
        offset=pl.Series([spans[name][0] for name, _ in members]),
        size=pl.Series([spans[name][1] for name, _ in members]),
    )  # fmt: skip
    write_table(root / "part-00000.parquet", table)
    write_table(root / "captions.parquet", pl.DataFrame(captions))
    write_table(root / "truth.parquet", pl.DataFrame(truth), sort_by="row")
    _funnel(root / "funnel.json")
    counts = {"48x96": 190, "48x80": 610, "64x64": 2710, "80x48": 641, "96x48": 40}
    write_json(
        root / "buckets.json",
        {"num_pictures": 4191, "num_bucketed": 4191, "num_dropped": {"too_small": 0},
         "mean_cropped_share": 0.0412, "pictures_by_bucket": counts, "global_batch_size": 64,
         "num_batches": {k: n // 64 for k, n in counts.items()},
         "num_leftover": {k: n % 64 for k, n in counts.items()},
         "num_repeated": {k: max(0, 64 - n) for k, n in counts.items()}},
    )  # fmt: skip
    return {
        "captions": [root / "captions.parquet"], "tables": [root / "part-00000.parquet"],
        "tars": [root / "part-00000.tar"], "listed": root, "truth": SPEC.truth,
        "funnel": root / "funnel.json", "buckets": root / "buckets.json",
    }  # fmt: skip


def _funnel(path: Path) -> None:
    removed = {"download": 612, "pwatermark": 160, "punsafe": 41, "min_side_px": 77, "max_aspect_ratio": 30}
    removed["duplicate"] = 189
    criteria, left = [], 5300
    for name, number in removed.items():
        left -= number
        criteria.append({"criterion": name, "first_failure": number, "fails": number + 9, "remaining": left})
    status = {"ok": 4688, "http_404": 210, "timeout": 120, "not_an_image": 96, "opted_out": 60}
    status |= {"truncated_image": 66, "too_many_pixels": 30, "connection_error": 29, HOSTILE: 1}
    joint = [
        {"criteria": ["pwatermark", "duplicate"], "fails": 12},
        {"criteria": ["download", "punsafe"], "fails": 0},
    ]
    unknown = {"pwatermark": {"rows": 93, "kept": 80}, "punsafe": {"rows": 88, "kept": 75}}
    write_json(
        path,
        {
            "rows": 5300,
            "kept": left,
            "criteria": criteria,
            "meaning": {name: f"{name} fails" for name in removed},
            "joint": joint,
            "status": status,
            "unknown": unknown,
        },
    )


def _training(root: Path, rng: np.random.Generator, steps: int = 1500) -> dict:
    step = np.arange(1, steps + 1)
    columns = {"step": step, "loss": 0.35 + 1.6 * np.exp(-step / 150) + rng.normal(0, 0.03, steps)}
    for i in range(10):
        level = 0.9 - 0.11 * i + 0.012 * i * i
        values = level + 1.2 * np.exp(-step / (90 + 25 * i)) + rng.normal(0, 0.05, steps)
        columns[f"loss_bin_{i}"] = np.where(rng.random(steps) < 0.03, np.nan, values)
    write_table(root / "history.parquet", pl.DataFrame(columns).fill_nan(None), sort_by="step")
    Image.new("RGB", (400, 150), (240, 240, 240)).save(root / "samples_0500.png")
    benchmarks = {}
    for stage, seconds in zip(STAGES, (41, 1, 2, 63, 1, 22, 251, 30, 12, 2), strict=True):
        benchmarks[stage] = [root / f"{stage}.tsv"]
        memory = "-" if seconds < 2 else f"{700 + 9 * seconds}.5"
        benchmarks[stage][0].write_text(
            f"s\th:m:s\tmax_rss\tcpu_time\n{seconds}.1\t0:00:01\t{memory}\t1\n", encoding="utf-8"
        )
    (root / "goodput.json").write_text(json.dumps(asdict(Account(210.0, 3.5, 12.0, 8.0, 17.0, 400.0))))
    buckets = {"64x64": BucketSpeed(800, 200.0, 25_600, 6e13), "96x48": BucketSpeed(200, 40.0, 6_400, 1.5e13)}
    speeds = Speeds("NVIDIA H200", 1, 989.4e12, buckets)
    (root / "speeds.json").write_text(json.dumps(asdict(speeds)))
    return {
        "goodput": root / "goodput.json",
        "speeds": root / "speeds.json",
        "history": root / "history.parquet",
        "samples": [root / "samples_0500.png"],
        "benchmarks": benchmarks,
    }


def _manifests(root: Path) -> dict:
    manifests: dict[str, Path] = {}
    for stage in STAGES:
        path = root / "manifests" / stage / "manifest.json"
        above = list(manifests.items())[-1:]
        counts = {"num_parameters": 11_400_000, "samples_seen": 96_000, "never_seen": 0, "min_visits": 22}
        counts |= {"max_visits": 23, "repeated_in_batch": 24}
        write_manifest(
            path, stage=stage, params={}, upstream=dict(above), counts=counts if stage == "train" else {}
        )
        manifests[stage] = path
    return manifests
