"""Assign the kept pictures of one part to buckets."""

from darkroom.bucket import bucket_part
from darkroom.config.bucket import Bucket
from darkroom.jobs import job
from darkroom.store import write_part_manifest

captions = [path for path in (snakemake.input.captions, snakemake.input.rewritten) if path]
with job(snakemake.log[0], snakemake.threads):
    counts = bucket_part(
        snakemake.input.table,
        snakemake.input.selection,
        Bucket(**snakemake.params.settings),
        snakemake.output.buckets,
        captions,
    )
    write_part_manifest(
        snakemake.output.manifest, [snakemake.output.buckets], counts, snakemake.params.made_with
    )
