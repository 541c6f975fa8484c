"""The stage's manifest from those of its scorers' files, each made with its scorer's own options."""

from darkroom.jobs import job, summary_line, tell
from darkroom.score import gather

with job(snakemake.log[0]):
    body = gather(
        snakemake.output.manifest,
        snakemake.input.parts,
        snakemake.params.made_with,
        snakemake.params.settings,
        {"download": snakemake.input.download},
    )
    tell(summary_line("score", body["counts"]))
