# A long and a short caption for every kept picture, beside its alt-text.


rule recaption_part:
    input:
        table=f"{DATASET}/download/{{part}}.parquet",
        tar=f"{DATASET}/download/{{part}}.tar",
        selection=f"{DATASET}/filter/{{part}}.parquet",
        captioner=component_files(captioner()),
    output:
        captions=f"{DATASET}/recaption/{{part}}.parquet",
        manifest=f"{DATASET}/recaption/{{part}}.json",
    log:
        f"{DATASET_LOGS}/recaption/{{part}}.log",
    benchmark:
        f"{DATASET_LOGS}/recaption/{{part}}.tsv"
    params:
        settings=settings(PROJECT.dataset.recaption),
        captioner=component(captioner()) if captioner() else None,
    script:
        "../workflow/scripts/recaption_part.py"


rule recaption:
    input:
        filter=f"{DATASET}/filter/manifest.json",
        parts=expand(f"{DATASET}/recaption/{{part}}.json", part=PARTS),
    output:
        manifest=f"{DATASET}/recaption/manifest.json",
    log:
        f"{DATASET_LOGS}/recaption/manifest.log",
    localrule: True
    params:
        stage="recaption",
        settings=stage_settings(PROJECT, "recaption"),
    script:
        "../workflow/scripts/manifest.py"
