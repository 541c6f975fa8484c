"""The funnel over all parts, and the stage's manifest."""

from darkroom.config.keep import Criterion
from darkroom.filter import funnel, refuse_empty, write_funnel
from darkroom.jobs import job, summary_line, tell
from darkroom.store import write_manifest

with job(snakemake.log[0]):
    keep = [Criterion(**values) for values in snakemake.params.settings["keep"]]
    counted = funnel(snakemake.input.selections, keep)
    refuse_empty(counted)
    write_funnel(counted, snakemake.output.funnel, snakemake.output.table)
    body = write_manifest(
        snakemake.output.manifest,
        stage=snakemake.params.stage,
        params=snakemake.params.settings,
        upstream={"score": snakemake.input.score},
        part_manifests=snakemake.input.parts,
        files=[snakemake.output.funnel, snakemake.output.table],
    )
    tell(summary_line("filter", body["counts"]))
