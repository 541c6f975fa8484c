# One training job: checkpoints lie in a run directory that is no output, because Snakemake deletes outputs
# before every attempt. The same rule runs on one process, one node or several, by the profile alone.


rule train_run:
    input:
        unpack(train_inputs),
        legs=last_leg,
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
        more=more_of_training,
    shell:
        "{params.launch} python workflow/scripts/train.py --settings {params.settings:q}"
        " --cache {input.cache:q} --run-dir {params.run_dir:q} --model {output.model:q}"
        " --untrained {output.untrained:q} --samples {output.samples:q} --history {output.history:q}"
        " --loss {output.loss:q} --manifest {output.manifest:q} --log {log:q} {params.more}"
