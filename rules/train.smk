# One training job: checkpoints lie in a run directory that is no output, because Snakemake deletes outputs
# before every attempt. The same rule runs on one process, one node or several, by the profile alone.


rule train:
    input:
        cache=f"{CACHE}/cache/manifest.json",
        null=f"{CACHE}/cache/null.safetensors",
        tensors=expand(f"{CACHE}/cache/{{part}}.safetensors", part=PARTS),
        tables=expand(f"{CACHE}/cache/{{part}}.parquet", part=PARTS),
        pretrained=component_files(PROJECT.run.model.pretrained),
        initial=[str(path) for path in INITIAL],
        class_tables=class_tables(),
        download=online_download(),
        tars=online_tars(),
    output:
        model=directory(f"{RUN}/train/model"),
        untrained=directory(f"{RUN}/train/untrained"),
        samples=directory(f"{RUN}/train/samples"),
        history=f"{RUN}/train/history.parquet",
        loss=f"{RUN}/train/loss.csv",
        manifest=f"{RUN}/train/manifest.json",
    log:
        f"{LOGS}/train/train.log",
    benchmark:
        f"{LOGS}/train/train.tsv"
    threads: PROJECT.run.train.num_threads or 2
    params:
        launch=launch,
        # No function of the resources: Snakemake would not see it change.
        settings=json.dumps(stage_settings(PROJECT, "train")),
        run_dir=f"checkpoints/{PROJECT.name}",
        more=lambda wildcards, input: " ".join(
            f"--{name} {files}"
            for name, files in (
                ("initial", input.initial),
                ("class-tables", input.class_tables),
                ("download", input.download),
            )
            if files
        ),
    shell:
        "{params.launch} python workflow/scripts/train.py --settings {params.settings:q}"
        " --cache {input.cache} --run-dir {params.run_dir} --model {output.model}"
        " --untrained {output.untrained} --samples {output.samples} --history {output.history} --loss {output.loss}"
        " --manifest {output.manifest} --log {log} {params.more}"
