"""The scores that the filter's thresholds are applied to, stored once."""

from darkroom.filter import score_part
from darkroom.jobs import job

with job(snakemake.log[0], snakemake.threads):
    score_part(snakemake.input.table, snakemake.output.scores)
