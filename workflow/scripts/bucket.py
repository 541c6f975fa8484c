"""The stage's summary of all parts, and its manifest."""

from darkroom.bucket import summarise
from darkroom.config.bucket import Bucket
from darkroom.jobs import job, summary_line, tell
from darkroom.store import write_manifest

# Of captions only where gates drop pictures for them.
named = ("filter", "recaption", "rewrite")
upstream = {name: path for name in named if (path := getattr(snakemake.input, name))}
with job(snakemake.log[0]):
    summarise(
        snakemake.input.buckets, Bucket(**snakemake.params.settings["bucket"]), snakemake.output.summary
    )
    body = write_manifest(
        snakemake.output.manifest,
        stage=snakemake.params.stage,
        params=snakemake.params.settings,
        upstream=upstream,
        part_manifests=snakemake.input.parts,
        files=[snakemake.output.summary],
    )
    tell(summary_line("bucket", body["counts"]))
