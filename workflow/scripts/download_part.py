"""Fetch, check and store the pictures of one part."""

import signal
import sys

from darkroom.config import load_dataset
from darkroom.config.dataset import Download, parse_source
from darkroom.download import before, journal
from darkroom.jobs import job
from darkroom.pinned import config_folder
from darkroom.sources.base import Part
from darkroom.sources.table import download_from, listing_path
from darkroom.store import part_index, round_of, write_part_manifest

# Schedulers and `kill` end jobs by SIGTERM: an end in order, that blames no row (`download.journal`).
signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
rows = snakemake.params.rows_per_part
round_number = round_of(snakemake.wildcards.part)
settings = Download(**snakemake.params.settings)
source = parse_source(snakemake.params.source)
with job(snakemake.log[0], snakemake.threads):
    # No `params` of the rule: it decides whether a part fails, and nothing that stands in it.
    dataset = load_dataset(snakemake.wildcards.dataset, config_folder().parent)
    part = Part(
        listing_path(snakemake.wildcards.dataset),
        first_row=0 if round_number else part_index(snakemake.wildcards.part) * rows,
        num_rows=rows,
        settings=settings,
        tar=snakemake.output.tar,
        table=snakemake.output.table,
        rows=snakemake.params.rows,
        num_decoders=snakemake.threads,
        max_transport_failures=dataset.max_transport_failures,
        keep_journal=True,
        round=round_number,
        retry_of=snakemake.input.retry_of,
        manners=dataset.manners,
    )
    counts = download_from(source, part)
    write_part_manifest(
        snakemake.output.manifest,
        [snakemake.output.tar, snakemake.output.table],
        counts,
        snakemake.params.made_with,
    )
    journal.forget(snakemake.output.tar)
    before.forget(snakemake.output.tar)
