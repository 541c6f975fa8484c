"""Draw the pictures of one model for one chunk of the prompts."""

from pathlib import Path

from darkroom.config.run import Draw
from darkroom.imports import quick_imports
from darkroom.jobs import job
from darkroom.store import COMPUTED_IN, write_part_manifest

settings = Draw(**snakemake.params.settings)
model = snakemake.wildcards.model
with job(snakemake.log[0], settings.num_threads or snakemake.threads):
    with quick_imports():
        import torch

        from darkroom.draw.stage import draw_chunk, load_drawer
        from darkroom.precision import resolve
        from darkroom.store.drawn import read_records

    number = draw_chunk(
        model,
        snakemake.wildcards.chunk,
        read_records(snakemake.input.prompts),
        load_drawer(Path(snakemake.input.model), Path(snakemake.input.pipeline), settings),
        settings,
        snakemake.output.tar,
        snakemake.output.table,
    )
    files = [snakemake.output.tar, snakemake.output.table]
    dtype = resolve(settings.dtype, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    counts = {"pictures": {model: number}, COMPUTED_IN: {dtype: number}}
    write_part_manifest(snakemake.output.manifest, files, counts, snakemake.params.made_with)
