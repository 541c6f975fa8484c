"""The dataset's list of URLs in darkroom's columns."""

from darkroom.config.dataset import parse_source
from darkroom.jobs import job
from darkroom.sources.table import listing_path, write_urls

with job(snakemake.log[0]):
    source, listing = parse_source(snakemake.params.source), listing_path(snakemake.wildcards.dataset)
    num_rows = write_urls(source, snakemake.output.urls, snakemake.params.columns, listing)
    print(f"urls       {num_rows:,} URLs")
