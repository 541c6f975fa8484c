"""What one scorer says of one part; for others that have to look at the same pictures, too."""

from darkroom.jobs import job
from darkroom.score.together import asked_of, score_for_all

with job(snakemake.log[0], snakemake.threads):
    said = {name: snakemake.params[name] for name in ("options", "components", "made_with")}
    said |= {"scorer": snakemake.wildcards.scorer, "references": snakemake.input.references}
    score_for_all(
        asked_of(snakemake.output.columns, said),
        snakemake.input.table,
        snakemake.input.tar or None,
    )
