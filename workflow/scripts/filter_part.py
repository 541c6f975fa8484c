"""Apply the criteria to one part."""

from darkroom.config.keep import Criterion
from darkroom.filter import select_part
from darkroom.jobs import job
from darkroom.scorers.table import SCORERS
from darkroom.store import write_part_manifest

with job(snakemake.log[0], snakemake.threads):
    columns = [SCORERS[name].columns for name in snakemake.params.scorers]
    counts = select_part(
        snakemake.input.table,
        dict(zip(snakemake.input.scores, columns, strict=True)),
        [Criterion(**values) for values in snakemake.params.keep],
        snakemake.output.selection,
    )
    write_part_manifest(
        snakemake.output.manifest, [snakemake.output.selection], counts, snakemake.params.made_with
    )
