"""Train an autoencoder on the kept pictures of a dataset."""

from pathlib import Path

from darkroom.autoencoder.project import load_autoencoder
from darkroom.jobs import job, summary_line, tell
from darkroom.pinned import config_folder
from darkroom.store import sha256_path, write_manifest
from darkroom.train.signals import ends_when_stopped

inputs, outputs, params = snakemake.input, snakemake.output, snakemake.params
project = load_autoencoder(snakemake.wildcards.autoencoder, config=config_folder())
with ends_when_stopped(), job(snakemake.log[0], project.autoencoder.train.num_threads):
    from darkroom.autoencoder.pictures import PictureFiles
    from darkroom.autoencoder.stage import AutoencoderInputs, train_autoencoder, training_key
    from darkroom.components.files import component_folder
    from darkroom.score.copies import pairs_of_copies

    upstream = {"download": Path(inputs.download), "filter": Path(inputs.filter)}
    for name in project.component_names("train"):
        upstream[f"component/{name}"] = component_folder(project.components[name])
    key = training_key(params.settings, {name: sha256_path(path) for name, path in upstream.items()})
    files = PictureFiles(inputs.tables, inputs.tars, inputs.selections, pairs_of_copies(inputs.copies))
    counts = train_autoencoder(
        AutoencoderInputs(files, project.autoencoder, project.components),
        Path(params.run_dir) / key,
        outputs.model,
        outputs.history,
    )
    write_manifest(
        outputs.manifest,
        stage="autoencoder_train",
        params=params.settings,
        upstream=upstream,
        files=[outputs.model, outputs.history],
        counts=counts,
    )
    tell(summary_line("autoencoder", counts))
