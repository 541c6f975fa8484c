"""Compare an autoencoder with the one that its configuration names, on held-out pictures."""

from pathlib import Path

from darkroom.autoencoder.project import load_autoencoder
from darkroom.components.base import Component
from darkroom.jobs import job, summary_line, tell
from darkroom.pinned import config_folder
from darkroom.store import check_newest_files, write_manifest

inputs, outputs, settings = snakemake.input, snakemake.output, snakemake.params.settings
name = snakemake.wildcards.autoencoder
project = load_autoencoder(name, config=config_folder())
with job(snakemake.log[0], snakemake.threads):
    from darkroom.autoencoder.compare import Compared, Contestant, compare
    from darkroom.autoencoder.pictures import PictureFiles
    from darkroom.components.files import component_folder
    from darkroom.score.copies import pairs_of_copies

    check_newest_files(inputs.train)
    upstream = {"train": inputs.train, "download": inputs.download, "filter": inputs.filter}
    for found in project.component_names("compare"):
        upstream[f"component/{found}"] = component_folder(project.components[found])
    reference = project.autoencoder.reference
    counts = compare(
        PictureFiles(inputs.tables, inputs.tars, inputs.selections, pairs_of_copies(inputs.copies)),
        settings,
        (
            Contestant(name, Component(kind="vae", path=str(Path(inputs.model)))),
            Contestant(reference, project.components[reference]),
        ),
        project.components,
        Compared(outputs.scores, outputs.latents, outputs.sheet),
        num_threads=snakemake.threads,
    )
    write_manifest(
        outputs.manifest,
        stage="autoencoder_compare",
        params=settings,
        upstream=upstream,
        files=[outputs.scores, outputs.latents, outputs.sheet],
        counts=counts,
    )
    tell(summary_line("compare", counts))
