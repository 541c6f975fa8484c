"""The run's page, and the manifest of what it shows; the page tells times, so its digest is that without them."""

from collections.abc import Sequence
from pathlib import Path

from darkroom.jobs import job, tell
from darkroom.store import read_manifest, write_manifest

with job(snakemake.log[0], snakemake.threads):
    from darkroom.config.keep import Criterion, Scorers
    from darkroom.report.build import DatasetInputs, ReportInputs, build_report
    from darkroom.report.planned import PLAN
    from darkroom.report.times import digest_without_times
    from darkroom.score.pictures import ScoredPictures
    from darkroom.sources.table import SOURCES
    from darkroom.train.goodput import GOODPUT
    from darkroom.train.speeds import SPEEDS

    def beside_log(name: str) -> Path | None:
        """What the training left beside its log."""
        found = (Path(logs, "train", name) for logs in snakemake.params.logs)
        return next((path for path in found if path.is_file()), None)

    def listed(value: str | Sequence[str]) -> list[Path]:
        """What is one for a run on one dataset, and a list for others."""
        return [Path(path) for path in ([value] if isinstance(value, str) else value)]

    def of_dataset(name: str, paths: Sequence[str]) -> list[Path]:
        """Those that lie in the dataset's folder."""
        return [path for path in listed(paths) if path.parent.parent.name == name]

    def scored(name: str, folder: Path, parts: Sequence[Path]) -> ScoredPictures:
        """A dataset as its manifests say that it was scored and filtered."""
        keep = read_manifest(folder / "filter/manifest.json")["params"]["keep"]
        scorers = read_manifest(folder / "score/manifest.json")["params"]["scorers"]
        return ScoredPictures(
            name,
            folder,
            [table.stem for table in parts],
            [Criterion.model_validate(values) for values in keep],
            Scorers.model_validate(scorers),
        )

    params, inputs = snakemake.params, snakemake.input
    names = [params.dataset] if isinstance(params.dataset, str) else list(params.dataset)
    kinds = [params.source] if isinstance(params.source, str) else list(params.source)
    paths = {name: Path(path) for name, path in inputs.items() if isinstance(path, str)}
    by_stage: dict[str, list[Path]] = {}
    for path in listed(inputs.chain):
        by_stage.setdefault(path.parent.name, []).append(path)
    manifests = {
        # Some datasets may lack a stage; a cache's folder is not named by the dataset, and each has one.
        stage if len(found) == 1 else f"{stage}/{owner if (owner := path.parts[-3]) in names else name}": path
        for stage, found in by_stage.items()
        for name, path in zip(names, found, strict=False)
    }
    benchmarks = {
        stage: sorted(file for logs in params.logs for file in Path(logs, stage).glob("*.tsv"))
        for stage in by_stage
    }
    per_dataset = zip(names, kinds, listed(inputs.funnel), listed(inputs.buckets), strict=True)
    datasets = [
        DatasetInputs(
            dataset=name,
            funnel=funnel,
            captions=of_dataset(name, inputs.captions),
            rewritten=of_dataset(name, inputs.rewritten),
            tables=of_dataset(name, inputs.tables),
            tars=of_dataset(name, inputs.tars),
            listed=funnel.parent.parent,
            truth=SOURCES[kind].truth,
            buckets=buckets,
            scored=scored(name, funnel.parent.parent, of_dataset(name, inputs.tables)),
        )
        for name, kind, funnel, buckets in per_dataset
    ]
    page = build_report(
        ReportInputs(
            run=snakemake.params.run,
            datasets=datasets,
            description=snakemake.params.settings["description"],
            metrics=paths["metrics"],
            prompts=paths["prompts"],
            pictures=Path(snakemake.input.pictures[0]).parent.parent,
            history=paths["history"],
            samples=sorted(paths["samples"].glob("*.png")),
            benchmarks=benchmarks,
            goodput=beside_log(GOODPUT),
            speeds=beside_log(SPEEDS),
            plan=next((path for logs in params.logs if (path := Path(logs, PLAN)).is_file()), None),
            manifests=manifests,
            config={stage: read_manifest(path)["params"] for stage, path in manifests.items()},
        ),
        snakemake.output.page,
    )
    write_manifest(
        snakemake.output.manifest,
        stage="report",
        params=snakemake.params.settings,
        upstream={stage: manifests[stage] for stage in ("watch", "evaluate") if stage in manifests},
        pages={page.name: digest_without_times(page, benchmarks)},
    )
    tell(f"report     {page.resolve()}")
