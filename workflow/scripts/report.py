"""The run's page, and the manifest of what it shows; the page tells times, so no manifest hashes it."""

from pathlib import Path

from darkroom.jobs import job
from darkroom.store import read_manifest, write_manifest

with job(snakemake.log[0], snakemake.threads):
    from darkroom.report import ReportInputs, build_report

    paths = {name: Path(path) for name, path in snakemake.input.items() if isinstance(path, str)}
    manifests = {Path(path).parent.name: Path(path) for path in snakemake.input.chain}
    benchmarks = {
        stage: sorted(file for logs in snakemake.params.logs for file in Path(logs, stage).glob("*.tsv"))
        for stage in manifests
    }
    page = build_report(
        ReportInputs(
            run=snakemake.params.run,
            dataset=snakemake.params.dataset,
            description=snakemake.params.settings["description"],
            metrics=paths["metrics"],
            prompts=paths["prompts"],
            pictures=paths["pictures"],
            funnel=paths["funnel"],
            captions=[Path(path) for path in snakemake.input.captions],
            tables=[Path(path) for path in snakemake.input.tables],
            tars=[Path(path) for path in snakemake.input.tars],
            truth=paths["funnel"].parent.parent / "truth.parquet",
            buckets=paths["buckets"],
            history=paths["history"],
            samples=sorted(paths["samples"].glob("*.png")),
            benchmarks=benchmarks,
            manifests=manifests,
            config={stage: read_manifest(path)["params"] for stage, path in manifests.items()},
        ),
        snakemake.output.page,
    )
    write_manifest(
        snakemake.output.manifest,
        stage="report",
        params=snakemake.params.settings,
        upstream={"evaluate": snakemake.input.evaluate},
    )
    print(f"report     {page.resolve()}")
