"""Caption the kept pictures of one part."""

from darkroom.components.base import Component
from darkroom.config import load_dataset
from darkroom.jobs import job
from darkroom.pinned import config_folder
from darkroom.recaption.original import keep_captions
from darkroom.store import write_part_manifest

tables = snakemake.input.table, snakemake.input.tar, snakemake.input.selection
with job(snakemake.log[0], snakemake.threads):
    if snakemake.params.settings is None:
        kept = tables[0], tables[2], snakemake.output.captions
        counts = keep_captions(*kept, snakemake.params.own_captions)
    else:
        from darkroom.captioners.scratch import forget
        from darkroom.recaption.stage import recaption_part

        # No `params` of the rule: these lack what changes no caption, as how a server is asked.
        dataset = load_dataset(snakemake.wildcards.dataset, config_folder().parent)
        components = {name: Component(**values) for name, values in snakemake.params.components.items()}
        captions = snakemake.output.captions
        asked = (dataset.recaption, components, captions, dataset.caption_gates)
        counts = recaption_part(*tables, *asked, keep_scratch=True)
    write_part_manifest(
        snakemake.output.manifest, [snakemake.output.captions], counts, snakemake.params.made_with
    )
    if snakemake.params.settings is not None:
        forget(snakemake.output.captions, counts)
