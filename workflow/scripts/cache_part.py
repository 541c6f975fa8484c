"""Encode the pictures and captions of one part, or index them where training encodes them."""

from darkroom.components.base import Component
from darkroom.config.run import Cache
from darkroom.imports import quick_imports
from darkroom.jobs import job
from darkroom.store import write_part_manifest

settings = Cache(**snakemake.params.settings)
vae = Component(**snakemake.params.vae)
text_encoders = [Component(**values) for values in snakemake.params.text_encoders]
outputs = (snakemake.output.tensors, snakemake.output.table)
with job(snakemake.log[0], snakemake.threads):
    with quick_imports():
        from darkroom.cache.fingerprint import PartTables
        from darkroom.cache.online import cache_index
        from darkroom.cache.stage import cache_part
        from darkroom.models.training_components import TrainingComponents

    inputs = snakemake.input
    tables = PartTables(inputs.table, inputs.captions, inputs.buckets, inputs.rewritten or None)
    encoders = TrainingComponents(settings, vae, text_encoders)
    if settings.online:
        counts = cache_index(tables, encoders, *outputs)
    else:
        counts = cache_part(tables, inputs.tar, encoders, *outputs)
    write_part_manifest(snakemake.output.manifest, outputs, counts, snakemake.params.made_with)
