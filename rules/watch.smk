# A training that is judged on the way is cut into legs, each a job that goes on where the one before ended: while a
# leg trains, the weights at the end of the one before are judged by a job of its own.


rule train_leg:
    input:
        unpack(train_inputs),
        before=leg_before,
        judged=judged_before,
    output:
        model=directory(f"{RUN}/watch/models/{{step}}"),
    log:
        f"{RUN_LOGS}/watch/train-{{step}}.log",
    benchmark:
        f"{RUN_LOGS}/watch/train-{{step}}.tsv"
    threads: of_run(lambda project: project.run.train.num_threads or 2)
    params:
        launch=launch,
        settings=of_run(lambda project: json.dumps(stage_settings(project, "train"))),
        watch=of_run(lambda project: json.dumps(settings(project.run.watch))),
        run_dir="checkpoints/{run}",
        more=more_of_training,
    shell:
        "{params.launch} python workflow/scripts/train.py --settings {params.settings:q}"
        " --cache {input.cache:q} --run-dir {params.run_dir:q} --model {output.model:q}"
        " --until {wildcards.step} --watch {params.watch:q} --log {log:q} {params.more}"


rule watch_step:
    input:
        unpack(watched_references),
        features=real_features_watched,
        model=f"{RUN}/watch/models/{{step}}",
        prompts=of_run(prompts_source),
        components=of_run(watched_component_files),
    output:
        scores=f"{RUN}/watch/{{step}}.scores.json",
        manifest=f"{RUN}/watch/{{step}}.json",
    log:
        f"{RUN_LOGS}/watch/{{step}}.log",
    benchmark:
        f"{RUN_LOGS}/watch/{{step}}.tsv"
    threads: of_run(lambda project: project.run.draw.num_threads or 2)
    params:
        made_with=made_with("watch"),
        watch=of_run(lambda project: settings(project.run.watch)),
        draw=of_run(lambda project: settings(project.run.draw)),
        metrics=of_run(watched_metrics),
        evaluate=of_run(lambda project: settings(project.run.evaluate)),
        components=of_run(watched_components),
    script:
        "../workflow/scripts/watch_step.py"


rule watch_manifest:
    input:
        train=f"{RUN}/train/manifest.json",
        history=f"{RUN}/train/history.parquet",
        scores=of_steps("{step}.scores.json"),
        models=of_steps("models/{step}"),
        parts=of_steps("{step}.json"),
    output:
        table=f"{RUN}/watch/steps.csv",
        best=directory(f"{RUN}/watch/best"),
        manifest=f"{RUN}/watch/manifest.json",
    log:
        f"{RUN_LOGS}/watch/manifest.log",
    localrule: True
    params:
        settings=all_settings("watch"),
    script:
        "../workflow/scripts/watch.py"
