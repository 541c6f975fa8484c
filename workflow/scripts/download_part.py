"""Fetch, check and store the pictures of one part."""

from darkroom.config.dataset import Download, parse_source
from darkroom.jobs import job
from darkroom.source import download_from
from darkroom.store import part_index, write_part_manifest

rows = snakemake.params.rows_per_part
settings = Download(**snakemake.params.settings)
source = parse_source(snakemake.params.source)
with job(snakemake.log[0], snakemake.threads):
    counts = download_from(
        source,
        snakemake.input.urls,
        first_row=part_index(snakemake.wildcards.part) * rows,
        num_rows=rows,
        settings=settings,
        tar=snakemake.output.tar,
        table=snakemake.output.table,
    )
    write_part_manifest(snakemake.output.manifest, [snakemake.output.tar, snakemake.output.table], counts)
