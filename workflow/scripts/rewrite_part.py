"""Have a language model write captions of one part anew."""

from darkroom.components.base import Component
from darkroom.config import load_dataset
from darkroom.jobs import job
from darkroom.pinned import config_folder
from darkroom.store import write_part_manifest

with job(snakemake.log[0], snakemake.threads):
    from darkroom.captioners.scratch import forget
    from darkroom.rewrite.stage import rewrite_part

    # No `params` of the rule: these lack what changes no caption, as how a server is asked.
    dataset = load_dataset(snakemake.wildcards.dataset, config_folder().parent)
    if dataset.rewrite is None:
        raise ValueError(f"config/datasets/{snakemake.wildcards.dataset}.yaml: has no section rewrite")
    components = {name: Component(**values) for name, values in snakemake.params.components.items()}
    out = snakemake.output.captions
    asked = (dataset.rewrite, components, out, dataset.rewrite_gates)
    counts = rewrite_part(snakemake.input.captions, *asked, keep_scratch=True)
    write_part_manifest(snakemake.output.manifest, [out], counts, snakemake.params.made_with)
    forget(out, counts)
