"""Bring the metrics of a run together: scores, intervals, differences."""

from darkroom.config.run import Draw, Evaluate
from darkroom.evaluate.stage import EvaluateInputs, evaluate
from darkroom.jobs import job, summary_line, tell
from darkroom.store import read_manifest, write_manifest
from darkroom.store.drawn import read_records

inputs = snakemake.input
with job(snakemake.log[0], snakemake.threads):
    digests = read_manifest(inputs.train)["files"]
    evaluated = EvaluateInputs(
        Draw(**snakemake.params.draw),
        Evaluate(**snakemake.params.settings),
        read_records(inputs.prompts),
        inputs.drawn_tables,
        inputs.draw,
        list(zip(inputs.tables, inputs.protocols, strict=True)),
        chosen=snakemake.params.metrics,
        models={"trained": digests["model"], "untrained": digests["untrained"]},
    )
    counts = evaluate(evaluated, snakemake.output.metrics, snakemake.output.prompts)
    write_manifest(
        snakemake.output.manifest,
        stage="evaluate",
        params=snakemake.params.stage,
        upstream={"train": inputs.train, "draw": inputs.draw, "measure": inputs.measure},
        files=[snakemake.output.metrics, snakemake.output.prompts],
        counts=counts,
    )
    tell(summary_line("evaluate", counts))
