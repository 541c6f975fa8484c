"""What a job pays for imports: processor seconds of a job of tables, of a cache and of a training that really run.

Each is the script of the workflow itself, on the pictures that the demo's package holds and a training of one
step, in a process of its own; counted is what is spent inside imports, those included that a library puts off
until it is used. There is no peer; the goals are seconds.

    python speed/job_imports.py
    python speed/job_imports.py --size small
"""

import builtins
import importlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import race
from race import ROOT, Figure, Result

GOALS = {"tables": 0.3, "cache": 2.5, "train": 4.0}
SCRIPTS = ROOT / "workflow/scripts"


class Importing:
    """Counts the processor seconds of imports while it is installed."""

    def __init__(self) -> None:
        self.seconds, self._is_inside = 0.0, False

    def install(self) -> None:
        """Under the statement `import` and under `importlib.import_module`, which lazy modules call."""
        builtins.__import__ = self._counted(builtins.__import__)  # type: ignore[assignment]
        importlib.import_module = self._counted(importlib.import_module)

    def _counted(self, imports: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            if self._is_inside:
                return imports(*args, **kwargs)
            self._is_inside, begin = True, time.process_time()
            try:
                return imports(*args, **kwargs)
            finally:
                self.seconds += time.process_time() - begin
                self._is_inside = False

        return counted


def project() -> Any:
    """The demo's, of one step."""
    from darkroom.config import load_project

    return load_project("demo", ROOT)


def prepare(folder: Path) -> None:
    """What the three jobs read: a part from the pictures to the cache, and the cache's manifest."""
    from darkroom import store
    from darkroom.bucket import bucket_part
    from darkroom.cache.stage import cache_null
    from darkroom.config.dataset import Download, parse_source
    from darkroom.config.keep import DEFAULT_KEEP
    from darkroom.filter import select_part
    from darkroom.recaption.original import keep_captions
    from darkroom.score import score_dataset, score_part
    from darkroom.scorers.table import SCORERS
    from darkroom.sources.base import Part
    from darkroom.sources.table import download_from, write_urls
    from darkroom.stages import stage_settings

    of = project()
    source = parse_source({"kind": "pictures", "folder": str(ROOT / "src/darkroom_demo/pictures/shapes")})
    number = write_urls(source, folder / "urls.parquet", [])
    table = folder / "part-00000.parquet"
    download_from(
        source, Part(folder / "urls.parquet", 0, number, Download(), table.with_suffix(".tar"), table)
    )
    score_part("size", {}, table, None, folder / "size.parquet")
    score_dataset("duplicate", {}, [table], folder / "duplicate.parquet")
    columns: dict[str | Path, list[str]] = {
        folder / f"{name}.parquet": list(SCORERS[name].columns) for name in ("size", "duplicate")
    }
    select_part(table, columns, DEFAULT_KEEP, folder / "selection.parquet")
    keep_captions(table, folder / "selection.parquet", folder / "captions.parquet")
    bucket_part(table, folder / "selection.parquet", of.run.bucket, folder / "buckets.parquet")
    (folder / "cache").mkdir()
    cache_null(of.run.cache, [of.components["demo-text"]], folder / "cache/null.safetensors")
    run_script("cache", folder)
    shard = folder / "cache/part-00000.safetensors"
    files = [folder / "cache/null.safetensors", shard, shard.with_suffix(".parquet")]
    store.write_manifest(
        folder / "cache/manifest.json", stage="cache", params=stage_settings(of, "cache"), upstream={},
        files=files,
    )  # fmt: skip


def run_script(job: str, folder: Path) -> None:
    """Run a job's script in this process."""
    if job == "train":
        sys.argv = ["train.py", *train_arguments(folder)]
        runpy.run_path(str(SCRIPTS / "train.py"), run_name="__main__")
        return
    snakemake = cache_job(folder) if job == "cache" else tables_job(folder)
    name = "cache_part.py" if job == "cache" else "filter_part.py"
    runpy.run_path(str(SCRIPTS / name), {"snakemake": snakemake}, run_name="__main__")


def _snakemake(
    folder: Path, inputs: dict[str, Any], outputs: dict[str, Any], params: dict[str, Any]
) -> SimpleNamespace:
    """What Snakemake puts into its scripts."""
    return SimpleNamespace(
        log=[str(folder / "log")], threads=1, input=SimpleNamespace(**inputs),
        output=SimpleNamespace(**outputs), params=SimpleNamespace(**params, made_with="speed"),
    )  # fmt: skip


def tables_job(folder: Path) -> SimpleNamespace:
    """Of the script filter_part.py."""
    keep = [{"column": "min_side_px", "min": 64}, {"column": "duplicate", "equals": False}]
    scores = [str(folder / f"{name}.parquet") for name in ("size", "duplicate")]
    return _snakemake(
        folder,
        {"table": str(folder / "part-00000.parquet"), "scores": scores},
        {"selection": str(folder / "again.parquet"), "manifest": str(folder / "again.json")},
        {"keep": keep, "scorers": ["size", "duplicate"]},
    )


def cache_job(folder: Path) -> SimpleNamespace:
    """Of the script cache_part.py."""
    place: dict[str, Any] = {name: str(folder / f"{name}.parquet") for name in ("captions", "buckets")}
    place["rewritten"] = []
    of = json.loads((folder / "settings.json").read_text())
    return _snakemake(
        folder,
        {"table": str(folder / "part-00000.parquet"), "tar": str(folder / "part-00000.tar"), **place},
        {
            "tensors": str(folder / "cache/part-00000.safetensors"),
            "table": str(folder / "cache/part-00000.parquet"),
            "manifest": str(folder / "cache/part-00000.json"),
        },
        of,
    )


def train_arguments(folder: Path) -> list[str]:
    """Of the script train.py."""
    out = Path(tempfile.mkdtemp(dir=folder))
    names = ("run-dir", "model", "untrained", "samples", "history", "loss", "manifest", "log")
    places = [word for name in names for word in (f"--{name}", str(out / name))]
    return [
        "--settings",
        (folder / "train.json").read_text(),
        "--cache",
        str(folder / "cache/manifest.json"),
        *places,
    ]


def write_settings(folder: Path) -> None:
    """What the rules would hand to these jobs: the demo's, for one step and without pictures drawn on the way."""
    from darkroom.stages import stage_settings

    of = project()
    train = stage_settings(of, "train")
    train["train"] |= {
        "num_steps": 1, "global_batch_size": 4, "microbatch_size": 4, "num_warmup_steps": 0,
        "sample_prompts": (), "num_threads": 1, "caption_choice": None,
    }  # fmt: skip
    (folder / "train.json").write_text(json.dumps(train))
    vae, text = (of.components[name].model_dump(mode="json") for name in ("demo-vae", "demo-text"))
    cache = {"settings": of.run.cache.model_dump(mode="json"), "vae": vae, "text_encoders": [text]}
    (folder / "settings.json").write_text(json.dumps(cache))


def counted(job: str, folder: Path) -> float:
    """Processor seconds of a job's imports, in a process of its own."""
    command = [sys.executable, __file__, "--side", job, "--folder", str(folder)]
    env = {**os.environ, **race.ONE_THREAD, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    return float(done.stdout.splitlines()[-1])


def main() -> None:
    asked = race.arguments(__doc__)
    if asked.side is not None:
        importing = Importing()
        importing.install()
        run_script(asked.side, asked.folder)
        print(importing.seconds)
        return
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory(prefix="speed-") as name:
        folder = Path(name)
        write_settings(folder)
        prepare(folder)
        found = {job: [counted(job, folder) for _ in range(asked.repeats)] for job in GOALS}
    figures = [Figure(job, "s", goal, min(found[job])) for job, goal in GOALS.items()]
    told = "CPU s inside imports of a job that runs, with bytecode"
    race.end(Result("imports of a job", told, figures), asked.json)


if __name__ == "__main__":
    main()
