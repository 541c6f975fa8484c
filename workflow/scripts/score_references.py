"""The hashes of a set of pictures that a training must not contain."""

from darkroom.jobs import job, tell
from darkroom.score.references import write_references

with job(snakemake.log[0], snakemake.threads):
    text, _ = snakemake.params.pictures
    counts = write_references(text, snakemake.output.table, snakemake.threads)
    said = ", ".join(f"{status} {number}" for status, number in counts.items())
    tell(f"reference set {snakemake.wildcards.reference}: {said}")
