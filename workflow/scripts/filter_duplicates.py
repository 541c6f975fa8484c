"""Byte-identical pictures over the whole dataset."""

from darkroom.filter import find_duplicates
from darkroom.jobs import job

with job(snakemake.log[0], snakemake.threads):
    find_duplicates(snakemake.input.scores, snakemake.output.duplicates)
