"""The stage's manifest from those of its chunks; pictures of chunks that are none any more go."""

from darkroom.draw.stage import remove_other_chunks
from darkroom.jobs import job, summary_line, tell
from darkroom.store import write_manifest

inputs = snakemake.input
with job(snakemake.log[0]):
    remove_other_chunks(inputs.parts)
    body = write_manifest(
        snakemake.output.manifest,
        stage="draw",
        params=snakemake.params.settings,
        upstream={"train": inputs.train},
        part_manifests=inputs.parts,
        files=[inputs.prompts],
    )
    tell(summary_line("draw", body["counts"]))
