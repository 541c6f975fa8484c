# Pictures for held-out prompts, from the trained and from the untrained model: a job for each model and chunk.


rule draw_prompts:
    input:
        prompts=of_run(prompts_source),
    output:
        prompts=f"{RUN}/draw/prompts.jsonl",
    log:
        f"{RUN_LOGS}/draw/prompts.log",
    localrule: True
    params:
        settings=of_run(lambda project: settings(project.run.draw)),
    script:
        "../workflow/scripts/draw_prompts.py"


rule draw_chunk:
    input:
        prompts=f"{RUN}/draw/prompts.jsonl",
        pipeline=f"{RUN}/train/model",
        model=model_folder,
    output:
        tar=f"{RUN}/draw/pictures/{{model}}/{{chunk}}.tar",
        table=f"{RUN}/draw/pictures/{{model}}/{{chunk}}.parquet",
        manifest=f"{RUN}/draw/{{model}}-{{chunk}}.json",
    log:
        f"{RUN_LOGS}/draw/{{model}}-{{chunk}}.log",
    benchmark:
        f"{RUN_LOGS}/draw/{{model}}-{{chunk}}.tsv"
    threads: of_run(lambda project: project.run.draw.num_threads or 2)
    params:
        made_with=made_with("draw"),
        settings=of_run(lambda project: settings(project.run.draw)),
    script:
        "../workflow/scripts/draw_chunk.py"


rule draw_manifest:
    input:
        train=f"{RUN}/train/manifest.json",
        prompts=f"{RUN}/draw/prompts.jsonl",
        parts=of_run(
            lambda project: of_chunks(
                project.name, f"{RUN}/draw/{{model}}-{{chunk}}.json"
            )
        ),
    output:
        manifest=f"{RUN}/draw/manifest.json",
    log:
        f"{RUN_LOGS}/draw/manifest.log",
    localrule: True
    params:
        settings=all_settings("draw"),
    script:
        "../workflow/scripts/draw.py"
