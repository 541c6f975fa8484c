"""How fast a training's steps are, bucket by bucket, and what share of the device's arithmetic they use (MFU)."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

# In the run directory, and beside the log of a training that has ended.
SPEEDS = "speeds.json"


@dataclass(frozen=True)
class BucketSpeed:
    """What is known of a bucket's steps, over all starts on this kind of device.

    steps, seconds: how many, and how long the device took for them, waiting for data left out.
    images: of all ranks. flops: of one rank's device in them; None where they could not be counted.
    """

    steps: int = 0
    seconds: float = 0.0
    images: int = 0
    flops: float | None = 0.0

    @property
    def images_per_second(self) -> float:
        """Of all ranks."""
        return self.images / (self.seconds or 1.0)

    @property
    def flops_per_second(self) -> float | None:
        """Of one rank's device."""
        return None if self.flops is None else self.flops / (self.seconds or 1.0)

    def plus(self, other: "BucketSpeed") -> "BucketSpeed":
        """Both together."""
        flops = None if self.flops is None or other.flops is None else self.flops + other.flops
        return BucketSpeed(
            self.steps + other.steps, self.seconds + other.seconds, self.images + other.images, flops
        )


@dataclass(frozen=True)
class Speeds:
    """By bucket ("512x768"); peak: FLOP/s of one device, None where it is not known."""

    device: str
    num_ranks: int
    peak: float | None
    buckets: Mapping[str, BucketSpeed]

    def mfu(self, bucket: BucketSpeed) -> float | None:
        """Model FLOPs utilization: the share of the device's peak that a bucket's steps use."""
        speed = bucket.flops_per_second
        return None if speed is None or self.peak is None else speed / self.peak

    def told(self) -> list[str]:
        """A line a bucket, for a log."""
        return [
            f"bucket {name}: {of.steps} steps, {of.images_per_second:.1f} img/s in them"
            + in_words(of.flops_per_second, self.mfu(of), self.num_ranks)
            for name, of in self.by_size()
        ]

    def by_size(self) -> list[tuple[str, BucketSpeed]]:
        """The buckets from narrow to wide."""
        return sorted(self.buckets.items(), key=lambda item: _sides(item[0]))


def read_speeds(path: Path) -> Speeds:
    """What a training left.

    Raises:
        ValueError: it is not what a training writes.
    """
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        buckets = {name: BucketSpeed(**of) for name, of in body.pop("buckets").items()}
        if not all(
            isinstance(number, int | float | None)
            for of in (*buckets.values(), BucketSpeed(flops=body["peak"]))
            for number in asdict(of).values()
        ):
            raise TypeError("not numbers")
        for name in buckets:
            _sides(name)
        return Speeds(buckets=buckets, **body)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path}: is not the speed of a training's buckets ({error})") from None


def together(speeds: Speeds, seconds: float) -> tuple[float | None, float | None]:
    """(FLOP/s of a device, MFU) of these steps over `seconds` of wall time."""
    total = sum_of(speeds.buckets.values())
    total = replace(total, seconds=seconds, flops=total.flops if total.steps else None)
    return total.flops_per_second, speeds.mfu(total)


def sum_of(buckets: Iterable[BucketSpeed]) -> BucketSpeed:
    """All of them together."""
    total = BucketSpeed()
    for bucket in buckets:
        total = total.plus(bucket)
    return total


def in_words(speed: float | None, mfu: float | None, num_ranks: int) -> str:
    """ " (410 TFLOP/s a rank, MFU 41.5%)", or less where less is known."""
    if speed is None:
        return ""
    share = "" if mfu is None else f", MFU {mfu:.1%}"
    return f" ({speed / 1e12:.3g} TFLOP/s{' a rank' if num_ranks > 1 else ''}{share})"


def _sides(bucket: str) -> tuple[int, ...]:
    width, height = bucket.split("x")
    return int(width), int(height)
