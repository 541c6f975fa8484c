# An autoencoder: a training whose checkpoints lie in a run directory that is no output, as those of `train`, and a
# comparison with another one on pictures that it never learned from.


rule autoencoder_train:
    input:
        unpack(autoencoder_pictures),
        components=of_autoencoder(autoencoder_component_files, "train"),
    output:
        model=directory(f"{AUTOENCODER}/train/model"),
        history=f"{AUTOENCODER}/train/history.parquet",
        manifest=f"{AUTOENCODER}/train/manifest.json",
    log:
        f"{AUTOENCODER_LOGS}/train.log",
    benchmark:
        f"{AUTOENCODER_LOGS}/train.tsv"
    threads: threads_of_autoencoder
    params:
        settings=of_autoencoder(autoencoder_settings, "train"),
        run_dir="checkpoints/autoencoders/{autoencoder}",
    script:
        "../workflow/scripts/autoencoder_train.py"


rule autoencoder_compare:
    input:
        unpack(autoencoder_pictures),
        model=f"{AUTOENCODER}/train/model",
        train=f"{AUTOENCODER}/train/manifest.json",
        components=of_autoencoder(autoencoder_component_files, "compare"),
    output:
        scores=f"{AUTOENCODER}/compare/scores.csv",
        latents=f"{AUTOENCODER}/compare/latents.csv",
        sheet=f"{AUTOENCODER}/compare/sheet.png",
        manifest=f"{AUTOENCODER}/compare/manifest.json",
    log:
        f"{AUTOENCODER_LOGS}/compare.log",
    benchmark:
        f"{AUTOENCODER_LOGS}/compare.tsv"
    threads: 2
    params:
        settings=of_autoencoder(autoencoder_settings, "compare"),
    script:
        "../workflow/scripts/autoencoder_compare.py"


rule autoencoder:
    input:
        compared_autoencoders,
    localrule: True
