"""What `darkroom sample` does: models loaded once, pictures of many prompts, a table, a sheet, and animations."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import polars as pl
from PIL import Image
from torch import Tensor

from darkroom.components.base import Component
from darkroom.config.run import Sampling
from darkroom.sample.compare import Clip, paired, scores, side_by_side, summary
from darkroom.sample.model import SampleModel, load_model
from darkroom.sample.options import DrawOptions, GuidanceConvention, guidance_scale
from darkroom.sample.seeds import drawn_seeds
from darkroom.store import replacing, write_json

FRAME_MS, LAST_FRAME_MS = 80, 1500


@dataclass(frozen=True)
class ImageRequest:
    """One picture to draw."""

    prompt_index: int
    prompt: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.prompt_index:05d}-seed{self.seed}"


def find_model(name: str, root: str | Path = ".") -> tuple[Path, Sampling]:
    """(folder, how it is drawn from by default) of a run's model by the run's name, or of a model's folder.

    Raises:
        ValueError: it is neither, or the run is not trained.
    """
    from darkroom.config import ConfigError, load_project

    if Path(name).is_dir():
        return Path(name), Sampling()
    try:
        project = load_project(name, root)
    except ConfigError as error:
        raise ValueError(f"{name} is neither a folder nor a run: {error}") from None
    folder = Path(root) / "results/runs" / name / "train/model"
    if not folder.is_dir():
        raise ValueError(f"run {name} has no model yet; snakemake train --config run={name} makes it")
    return folder, project.run.draw.sampling


def find_clip(name: str, root: str | Path = ".") -> Component:
    """A CLIP by its name in config/components.yaml, or by its folder.

    Raises:
        ValueError: it is neither.
    """
    from darkroom.config.load import load_components

    if Path(name).is_dir():
        return Component(kind="clip", path=name)
    known = {
        k: c for k, c in load_components(Path(root) / "config/components.yaml").items() if c.kind == "clip"
    }
    if name not in known:
        raise ValueError(
            f"{name} is neither a folder nor a CLIP of config/components.yaml: {', '.join(known)}"
        )
    return known[name]


def read_prompts(path: str | Path) -> list[str]:
    """One prompt a line; empty lines are passed over.

    Raises:
        ValueError: the file is missing or holds no prompt.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} is no file of prompts")
    prompts = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not prompts:
        raise ValueError(f"{path} holds no prompt; write one a line")
    return prompts


def from_command_line(
    model: str,
    prompts: list[str],
    prompts_file: Path | None,
    baseline: str,
    seeds: Sequence[int],
    num_pictures: int,
    asked: dict[str, int | None],
    guidance: float | None,
    convention: str,
    out: Path,
    *,
    clip: str,
    animate: bool,
    **drawing: Any,
) -> None:
    """`darkroom sample`, with its options as they were typed; asked: values of `Sampling`, None for the default.

    Raises:
        ValueError: as `sample` does; a model, CLIP or file cannot be found.
    """
    from darkroom.components.clip import load_clip

    folder, default = find_model(model)
    conventions = get_args(GuidanceConvention)
    if convention not in conventions:
        raise ValueError(f"guidance convention {convention!r} is none of {', '.join(conventions)}")
    values = {name: value for name, value in asked.items() if value is not None}
    if guidance is not None:
        values["guidance_scale"] = guidance_scale(guidance, convention)  # type: ignore[arg-type,assignment]
    how = DrawOptions(Sampling(**(default.model_dump() | values)), **drawing)
    prompts = prompts + (read_prompts(prompts_file) if prompts_file else [])
    models = {"model": partial(load_model, folder)}
    if baseline:
        other = find_model(baseline)[0]
        models = {"baseline": partial(load_model, other, folder), "tuned": partial(load_model, folder)}
    scorer = load_clip(find_clip(clip)) if clip else None
    drawn = drawn_seeds(seeds, len(prompts), num_pictures)
    compared = sample(models, prompts, drawn, how, out, clip=scorer, animate=animate)
    if compared:
        print(
            f"tuned - baseline: {compared['difference']:+.2f} CLIPScore, 95 % interval "
            f"{compared['difference_low']:+.2f} to {compared['difference_high']:+.2f}, over "
            f"{compared['num_prompts']} prompts"
        )
    print(f"{out / 'grid.png'} shows them all")


def sample(
    models: Mapping[str, Callable[[], SampleModel]],
    prompts: Sequence[str],
    seeds: Sequence[Sequence[int]],
    drawing: DrawOptions,
    out: str | Path,
    *,
    clip: Clip | None = None,
    animate: bool = False,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Draw every prompt with every of its seeds from every model, and write it all to a new folder.

    Args:
        models: name -> what loads it; "baseline" and "tuned" are compared. One is in memory at a time.
        seeds: of each prompt's pictures.
        clip: scores the pictures, if given.
        animate: also write each picture's denoising as a GIF.
        say: told of each picture.

    Writes <model>/<prompt>-seed<seed>.png (and .gif), pictures.csv, grid.png, settings.json, and with two models
    and a CLIP pairs.csv and comparison.json. Returns what comparison.json holds, else {}.
    Raises:
        ValueError: `out` exists, there is nothing to draw, or an option does not fit a model.
    """
    out = Path(out)
    if out.exists():
        raise ValueError(f"{out} is there already; name another folder, or remove it")
    wanted = [ImageRequest(i, prompt, seed) for i, prompt in enumerate(prompts) for seed in seeds[i]]
    if not wanted:
        raise ValueError("there is nothing to draw: give a prompt and a seed")
    if len({one.name for one in wanted}) != len(wanted):
        raise ValueError("a seed is given twice; the same picture would be drawn again")
    drawn: dict[str, np.ndarray] = {}
    tables: dict[str, pl.DataFrame] = {}
    compared: dict[str, Any] = {}
    with replacing(out) as beside:
        for name, load in models.items():
            (beside / name).mkdir(parents=True)
            drawn[name] = _draw(load(), wanted, drawing, beside / name, animate)
            tables[name] = _table(name, wanted, drawn[name], clip)
            for row in tables[name].iter_rows(named=True):
                score = f", CLIPScore {row['clip_score']:.1f}" if clip else ""
                say(f"{out / row['file']}: seed {row['seed']}{score}")
        pl.concat(tables.values()).write_csv(beside / "pictures.csv")
        labels = [f"{one.prompt} (seed {one.seed})" for one in wanted]
        side_by_side(drawn, labels, cell_px=max(128, drawing.sampling.width_px)).save(beside / "grid.png")
        if clip is not None and set(models) == {"baseline", "tuned"}:
            pairs = paired(tables)
            pairs.write_csv(beside / "pairs.csv")
            compared = summary(pairs)
            write_json(beside / "comparison.json", compared)
        settings = {**asdict(drawing), "sampling": drawing.sampling.model_dump()}
        write_json(beside / "settings.json", settings)
    return compared


def _draw(
    model: SampleModel, wanted: list[ImageRequest], drawing: DrawOptions, folder: Path, animate: bool
) -> np.ndarray:
    """Draw and write one model's pictures: uint8 (K, H, W, 3)."""
    film = _DenoisingFrames(model) if animate else None
    prompts, seeds = [one.prompt for one in wanted], [one.seed for one in wanted]
    pictures = model.draw(prompts, seeds, drawing, film)
    for k, (one, picture) in enumerate(zip(wanted, pictures, strict=True)):
        Image.fromarray(picture).save(folder / f"{one.name}.png")
        if film is not None:
            film.write(folder / f"{one.name}.gif", k)
    return pictures


class _DenoisingFrames:
    """The latents of all steps, decoded as they come: picture -> frames."""

    def __init__(self, model: SampleModel) -> None:
        self._model = model
        self._frames: dict[int, list[Image.Image]] = {}

    def __call__(self, first: int, step: int, latents: Tensor) -> None:
        for k, picture in enumerate(self._model.decode(latents)):
            self._frames.setdefault(first + k, []).append(Image.fromarray(picture))

    def write(self, path: Path, picture: int) -> None:
        """One picture's frames as a GIF that holds its last one."""
        frames = self._frames[picture]
        durations = [FRAME_MS] * (len(frames) - 1) + [LAST_FRAME_MS]
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, loop=0)


def _table(name: str, wanted: list[ImageRequest], pictures: np.ndarray, clip: Clip | None) -> pl.DataFrame:
    table = pl.DataFrame(
        {
            "model": [name] * len(wanted),
            "file": [f"{name}/{one.name}.png" for one in wanted],
            "prompt_index": [one.prompt_index for one in wanted],
            "prompt": [one.prompt for one in wanted],
            "seed": [one.seed for one in wanted],
        }
    )
    if clip is None:
        return table
    return table.with_columns(clip_score=pl.Series(scores(clip, pictures, [one.prompt for one in wanted])))
