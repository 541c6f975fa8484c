"""The dataset's list of URLs in darkroom's columns."""

from darkroom.config.dataset import parse_source
from darkroom.jobs import job
from darkroom.source import write_urls

with job(snakemake.log[0]):
    num_rows = write_urls(parse_source(snakemake.params.source), snakemake.output.urls)
    print(f"urls       {num_rows:,} URLs")
