"""Bring the judged steps of a training together: a table, and the best of them."""

from darkroom.jobs import job, summary_line, tell
from darkroom.store import write_manifest

inputs, outputs, settings = snakemake.input, snakemake.output, snakemake.params.settings
with job(snakemake.log[0]):
    from darkroom.watch.stage import gather

    best = settings["watch"]["best"]
    counts = gather(inputs.scores, inputs.models, best, inputs.history, outputs.table, outputs.best)
    body = write_manifest(
        outputs.manifest,
        stage="watch",
        params=settings,
        upstream={"train": inputs.train},
        part_manifests=inputs.parts,
        files=[outputs.table, outputs.best],
        counts=counts,
    )
    tell(summary_line("watch", body["counts"]))
