# Captions for every kept picture, beside its alt-text.


rule recaption_part:
    input:
        table=f"{DATASET}/download/{{part}}.parquet",
        tar=f"{DATASET}/download/{{part}}.tar",
        selection=f"{DATASET}/filter/{{part}}.parquet",
        components=of_run(captioner_files),
    output:
        captions=f"{DATASET}/recaption/{{part}}.parquet",
        manifest=f"{DATASET}/recaption/{{part}}.json",
    log:
        f"{DATASET_LOGS}/recaption/{{part}}.log",
    benchmark:
        f"{DATASET_LOGS}/recaption/{{part}}.tsv"
    params:
        made_with=made_with("recaption"),
        settings=of_run(lambda project: settings(project.dataset.recaption)),
        components=of_run(captioner_components),
        gates=of_run(lambda project: settings(project.dataset.caption_gates)),
        own_captions=of_run(lambda project: list(project.dataset.own_captions)),
    script:
        "../workflow/scripts/recaption_part.py"


rule recaption_manifest:
    input:
        filter=f"{DATASET}/filter/manifest.json",
        parts=for_parts(f"{DATASET}/recaption/{{part}}.json"),
    output:
        manifest=f"{DATASET}/recaption/manifest.json",
    log:
        f"{DATASET_LOGS}/recaption/manifest.log",
    localrule: True
    params:
        stage="recaption",
        settings=all_settings("recaption"),
    script:
        "../workflow/scripts/manifest.py"
