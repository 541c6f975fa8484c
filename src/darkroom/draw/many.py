"""Pictures of many prompts from any model: chunk by chunk, by one process or by several that share them out."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from darkroom.benchmarks.base import Record
from darkroom.benchmarks.table import read_prompts
from darkroom.config.run import Draw
from darkroom.differences import told
from darkroom.draw.chunks import chunk_names
from darkroom.draw.stage import draw_chunk, draw_protocol, load_drawer, write_prompts
from darkroom.precision import resolve
from darkroom.settings.json_texts import read_json
from darkroom.store import sha256_path, write_json

MODEL = "model"
SETTINGS, PROMPTS = "settings.json", "prompts.jsonl"


class Share(NamedTuple):
    """Which of several processes this one is, from 0: it draws every `of`-th chunk."""

    number: int = 0
    of: int = 1

    @classmethod
    def read(cls, text: str) -> "Share":
        """`2/8` is the second of eight.

        Raises:
            ValueError: it is no such text.
        """
        number, _, of = text.partition("/")
        if not (number.isdigit() and of.isdigit() and 1 <= int(number) <= int(of)):
            raise ValueError(
                f"--share {text!r}: write 1/8 to 8/8 for the first to the last of eight processes"
            )
        return cls(int(number) - 1, int(of))


ALL = Share()


def draw_many(
    model: str | Path,
    settings: Draw,
    out: str | Path,
    share: Share = ALL,
    say: Callable[[str], None] = print,
) -> dict[str, int]:
    """Draw the pictures of this process's share of the chunks that are not there yet; return counts.

    Writes into `out` settings.json, prompts.jsonl, and for each chunk a tar and a table as the draw stage does.
    Picture k of prompt p has the seed of (seed, p, k), whoever draws it.

    Args:
        model: a folder that `sample.model.load_model` takes.
        settings: how is drawn, and of which prompts.

    Raises:
        ValueError: `out` holds pictures that were drawn otherwise, or a prompt or size is wrong.
    """
    out = Path(out)
    records = _agreed(Path(model), settings, out)
    mine = chunk_names(settings, len(records))[share.number :: share.of]
    left = [chunk for chunk in mine if not _files(out, chunk)[1].exists()]
    if len(left) < len(mine):
        say(f"{len(mine) - len(left)} of {len(mine)} chunks are there already")
    counts = {"chunks": len(mine), "drawn": 0, "pictures": 0}
    drawer = load_drawer(Path(model), Path(model), settings) if left else None
    for place, chunk in enumerate(left, start=1):
        assert drawer is not None
        # The table comes last: where it is, the chunk is whole.
        tar, table = _files(out, chunk)
        counts["pictures"] += draw_chunk(MODEL, chunk, records, drawer, settings, tar, table)
        counts["drawn"] += 1
        say(f"{chunk}: drawn, {place} of {len(left)}")
    return counts


def _files(out: Path, chunk: str) -> tuple[Path, Path]:
    folder = out / MODEL
    return folder / f"{chunk}.tar", folder / f"{chunk}.parquet"


def _agreed(model: Path, settings: Draw, out: Path) -> Sequence[Record]:
    """The prompts; what is drawn into a folder is drawn in one way, whoever draws it."""
    records = read_prompts(settings.prompts, settings.max_prompts)
    asked = _protocol(model, settings, records)
    if not (out / SETTINGS).exists():
        if out.exists() and set(out.iterdir()) - {out / PROMPTS}:
            raise ValueError(
                f"{out} is there already, and was not drawn by this command; name another folder"
            )
        # Several processes may begin at once: all write the same bytes, and each by a rename.
        write_prompts(settings, out / PROMPTS)
        write_json(out / SETTINGS, asked)
    drawn = read_json((out / SETTINGS).read_text(encoding="utf-8"))
    if drawn != asked:
        raise ValueError(
            f"{out}: holds pictures that were drawn otherwise ({told(drawn, asked)}); name another folder"
        )
    return records


def _protocol(model: Path, settings: Draw, records: Sequence[Record]) -> dict[str, Any]:
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    protocol = draw_protocol(settings, records)
    # By what they are, not by where they lie.
    protocol["prompts"] = {key: protocol["prompts"][key] for key in ("number", "sha256")}
    return {
        "model": sha256_path(model),
        **protocol,
        "batch_size": settings.batch_size,
        "prompts_per_chunk": settings.prompts_per_chunk,
        "dtype": resolve(settings.dtype, device),
    }
