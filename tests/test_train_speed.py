"""The speed of a training's steps, bucket by bucket, and the arithmetic that they need."""

# ruff: noqa: F811 (tests take the fixtures that are imported)

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from family_cases import AGAIN, CASES, PLAIN
from family_world import cached, settings_of, world  # noqa: F401 (fixtures)
from torch import Tensor, nn

from darkroom.config.model import read_model
from darkroom.families.conditioning import Conditioning
from darkroom.models.families import build_denoiser
from darkroom.train import meter
from darkroom.train.data import LatentCache
from darkroom.train.flops import PEAK_FLOPS, peak_flops, training_flops
from darkroom.train.loader import BatchMaker, TrainBatch
from darkroom.train.meter import SpeedMeter
from darkroom.train.paired import make_plan
from darkroom.train.speeds import SPEEDS, BucketSpeed, Speeds, read_speeds, together


class TwoLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, noisy: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        return self.second(self.first(noisy))


@pytest.mark.parametrize(
    ("trained", "products"),
    [
        # Forward; gradients of both weights; that of what lies between the layers.
        (("first.weight", "second.weight"), (8 * 16 + 16 * 4) * 2 + 16 * 4),
        (("second.weight",), 8 * 16 + 2 * 16 * 4),
        (("first.weight",), 2 * 8 * 16 + 2 * 16 * 4),
    ],
)
def test_flops_are_two_for_each_product_of_what_training_needs(
    trained: tuple[str, ...], products: int
) -> None:
    nothing = Conditioning((), (), torch.zeros(5, 0))
    assert training_flops(TwoLayers(), trained, torch.zeros(5, 8), nothing) == 2 * 5 * products


def build(world: SimpleNamespace, family: str, section: dict[str, Any]) -> tuple[nn.Module, TrainBatch]:
    inputs, _ = cached(world, family)
    cache, settings = LatentCache(*inputs), settings_of(family)
    model = build_denoiser(read_model({"family": family, **section}), cache.sizes, seed=0)
    return model, BatchMaker(cache, make_plan(0, 4, cache.uids, None, 0, None), settings, 0).make(0)


def count(model: nn.Module, batch: TrainBatch, num: int = 1) -> int:
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    return training_flops(model, trained, batch.latents[:num], batch.conditioning[:num])


@pytest.mark.parametrize("case", CASES)
def test_every_familys_flops_are_counted_without_touching_its_network(
    world: SimpleNamespace, case: str
) -> None:
    model, batch = build(world, *CASES[case][:2])
    before = {name: (id(tensor), tensor.device) for name, tensor in model.state_dict(keep_vars=True).items()}
    one = count(model, batch)
    # DoRA's norms of weights are computed once, however many pictures there are.
    assert count(model, batch, 3) == pytest.approx(3 * one, rel=0.01)
    after = {name: (id(tensor), tensor.device) for name, tensor in model.state_dict(keep_vars=True).items()}
    assert before == after and all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("family", [family for family, again in AGAIN.items() if again])
def test_what_is_computed_again_to_save_memory_is_not_counted(world: SimpleNamespace, family: str) -> None:
    plain, batch = build(world, family, PLAIN[family])
    again, _ = build(world, family, {**PLAIN[family], **dict.fromkeys(AGAIN[family], True)})
    switched = [name for m in again.modules() for name, on in vars(m).items() if "checkpoint" in name and on]
    assert switched and count(again, batch) == count(plain, batch)
    assert switched == [
        name for m in again.modules() for name, on in vars(m).items() if "checkpoint" in name and on
    ]


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("NVIDIA A100-SXM4-80GB", "NVIDIA A100"), ("NVIDIA H100 80GB HBM3", "NVIDIA H100"),
        ("NVIDIA H100 PCIe", "NVIDIA H100 PCIe"), ("NVIDIA H200", "NVIDIA H200"), ("NVIDIA L40S", "NVIDIA L40S"),
        ("NVIDIA A10G", "NVIDIA A10G"), ("NVIDIA A1000", None), ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None), ("Tesla V100-SXM2-16GB", None), ("cpu", None),
    ],
)  # fmt: skip
def test_a_peak_is_that_of_the_whole_device_and_of_no_other(name: str, known: str | None) -> None:
    assert peak_flops(name, "bfloat16") == (None if known is None else PEAK_FLOPS[known])
    assert peak_flops(name, "float32") is None


# The meter

KNOWN = Speeds("NVIDIA H200", 2, 1e12, {})


def batch_of(bucket: tuple[int, int]) -> Any:
    return SimpleNamespace(bucket=bucket)


class Measured:
    """A meter whose steps take as long as one says."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
        self.at, self.lines, self.asked = 0.0, list[str](), list[tuple[int, int]]()
        monkeypatch.setattr(meter.time, "perf_counter", lambda: self.at)
        known = replace(KNOWN, **changes)
        self.meter = SpeedMeter(folder, torch.device("cpu"), known, 8, self.count, self.lines.append)

    def count(self, batch: TrainBatch) -> int:
        self.asked.append(batch.bucket)
        return batch.bucket[0] * 10**9

    def step(self, bucket: tuple[int, int], seconds: float) -> None:
        with self.meter.step(batch_of(bucket)):
            self.at += seconds


def test_speeds_are_by_bucket_and_add_up_over_the_starts_of_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Measured(tmp_path, monkeypatch)
    for bucket, seconds in (((64, 64), 1.0), ((64, 64), 3.0), ((128, 32), 4.0)):
        first.step(bucket, seconds)
        first.at += 100  # no step
    found = first.meter.note()
    # 8 pictures a step on two ranks: each device does four pictures' work.
    assert found.buckets == {
        "64x64": BucketSpeed(2, 4.0, 16, 2 * 4 * 64e9), "128x32": BucketSpeed(1, 4.0, 8, 4 * 128e9)
    }  # fmt: skip
    assert found.mfu(found.buckets["64x64"]) == 0.128 and first.asked == [(64, 64), (128, 32)]
    assert together(found, 16.0) == (64e9, 0.064)
    again = Measured(tmp_path, monkeypatch)
    assert together(again.meter.note(), 1.0) == (None, None)
    again.step((64, 64), 4.0)
    assert again.meter.note().buckets == {"64x64": BucketSpeed(1, 4.0, 8, 256e9)}
    assert again.meter.speeds == read_speeds(tmp_path / SPEEDS)
    assert again.meter.speeds.told() == [
        "bucket 64x64: 3 steps, 3.0 img/s in them (0.096 TFLOP/s a rank, MFU 9.6%)",
        "bucket 128x32: 1 steps, 2.0 img/s in them (0.128 TFLOP/s a rank, MFU 12.8%)",
    ]


@pytest.mark.parametrize("changes", [{"device": "cpu"}, {"num_ranks": 1}, {"peak": None}])
def test_steps_on_another_device_are_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    first = Measured(tmp_path, monkeypatch)
    first.step((64, 64), 1.0)
    first.meter.note()
    assert Measured(tmp_path, monkeypatch, **changes).meter.speeds.buckets == {}


@pytest.mark.parametrize(
    "change",
    [
        lambda body: "{",
        lambda body: json.dumps([]),
        lambda body: json.dumps({**body, "buckets": {"wide": {}}}),
        lambda body: json.dumps({**body, "buckets": {"8x8": {"steps": "many"}}}),
        lambda body: json.dumps({**body, "buckets": {"8x8": {"step": 1}}}),
        lambda body: json.dumps({**body, "peak": "high"}),
    ],
)
def test_a_damaged_file_is_told_and_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], str]
) -> None:
    Measured(tmp_path, monkeypatch).meter.note()
    path = tmp_path / SPEEDS
    path.write_text(change(json.loads(path.read_text())))
    again = Measured(tmp_path, monkeypatch)
    (line,) = again.lines
    assert re.match(rf"train: {re.escape(str(path))}: is not the speed of .*; it is written anew", line)
    again.step((64, 64), 1.0)
    again.meter.note()
    assert read_speeds(path).buckets["64x64"].steps == 1


def test_where_flops_cannot_be_counted_the_speed_is_told_without_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(batch: TrainBatch) -> int:
        raise NotImplementedError("no shapes")

    monkeypatch.setattr(Measured, "count", lambda self, batch: refuse(batch))
    measured = Measured(tmp_path, monkeypatch)
    for bucket in ((64, 64), (128, 32), (64, 64)):
        measured.step(bucket, 1.0)
    assert together(measured.meter.note(), 1.0) == (None, None)
    assert measured.lines == ["train: the FLOPs of a step could not be counted (no shapes); no MFU is told"]
    assert read_speeds(tmp_path / SPEEDS).told()[0] == "bucket 64x64: 2 steps, 8.0 img/s in them"
