# One training job: checkpoints lie in a run directory that is no output, because Snakemake deletes outputs
# before every attempt. The same rule runs on one process, one node or several, by the profile alone.


rule train_run:
    input:
        # Of a run on several datasets: of each, in their order.
        cache=of_job(f"{CACHE}/cache/manifest.json"),
        null=of_job(f"{CACHE}/cache/null.safetensors"),
        tensors=for_parts(f"{CACHE}/cache/{{part}}.safetensors"),
        tables=for_parts(f"{CACHE}/cache/{{part}}.parquet"),
        pretrained=of_run(lambda project: component_files(project.run.model.pretrained)),
        initial=of_run(initial_manifest),
        class_tables=for_parts(f"{DATASET}/download/{{part}}.parquet", if_priors),
        download=of_job(f"{DATASET}/download/manifest.json", if_online),
        tars=for_parts(f"{DATASET}/download/{{part}}.tar", if_online),
    output:
        model=directory(f"{RUN}/train/model"),
        untrained=directory(f"{RUN}/train/untrained"),
        samples=directory(f"{RUN}/train/samples"),
        history=f"{RUN}/train/history.parquet",
        loss=f"{RUN}/train/loss.csv",
        manifest=f"{RUN}/train/manifest.json",
    log:
        f"{RUN_LOGS}/train/train.log",
    benchmark:
        f"{RUN_LOGS}/train/train.tsv"
    threads: of_run(lambda project: project.run.train.num_threads or 2)
    params:
        launch=launch,
        # No function of the resources: Snakemake would not see it change.
        settings=of_run(lambda project: json.dumps(stage_settings(project, "train"))),
        run_dir="checkpoints/{run}",
        more=lambda wildcards, input: " ".join(
            f"--{name} {for_shell(files)}"
            for name, files in (
                ("initial", input.initial),
                ("class-tables", input.class_tables),
                ("download", input.download),
            )
            if files
        ),
    shell:
        "{params.launch} python workflow/scripts/train.py --settings {params.settings:q}"
        " --cache {input.cache:q} --run-dir {params.run_dir:q} --model {output.model:q}"
        " --untrained {output.untrained:q} --samples {output.samples:q} --history {output.history:q}"
        " --loss {output.loss:q} --manifest {output.manifest:q} --log {log:q} {params.more}"
