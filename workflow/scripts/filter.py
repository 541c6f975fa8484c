"""The funnel over all parts, and the stage's manifest."""

from darkroom.filter import funnel, write_funnel
from darkroom.jobs import job, summary_line
from darkroom.store import write_manifest

with job(snakemake.log[0]):
    write_funnel(funnel(snakemake.input.selections), snakemake.output.funnel, snakemake.output.table)
    body = write_manifest(
        snakemake.output.manifest,
        stage=snakemake.params.stage,
        params=snakemake.params.settings,
        upstream={"download": snakemake.input.download},
        part_manifests=snakemake.input.parts,
        files=[snakemake.output.funnel, snakemake.output.table],
    )
    print(summary_line("filter", body["counts"]))
