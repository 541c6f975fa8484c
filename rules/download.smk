# The list of URLs, cut into parts; every URL of a part fetched, checked and stored.


rule urls:
    output:
        urls=f"{DATASET}/urls.parquet",
        # The demo world also leaves its list as published ones look, and the truth about it.
        more=[f"{DATASET}/{name}.parquet" for name in ("list", "truth") if IS_DEMO],
    log:
        f"{DATASET_LOGS}/download/urls.log",
    params:
        source=settings(PROJECT.dataset.source),
        state=source_state(),
    script:
        "../workflow/scripts/urls.py"


rule download_part:
    input:
        urls=f"{DATASET}/urls.parquet",
    output:
        tar=f"{DATASET}/download/{{part}}.tar",
        table=f"{DATASET}/download/{{part}}.parquet",
        manifest=f"{DATASET}/download/{{part}}.json",
    log:
        f"{DATASET_LOGS}/download/{{part}}.log",
    benchmark:
        f"{DATASET_LOGS}/download/{{part}}.tsv"
    params:
        source=settings(PROJECT.dataset.source),
        rows_per_part=PROJECT.dataset.rows_per_part,
        settings=settings(PROJECT.dataset.download),
    script:
        "../workflow/scripts/download_part.py"


rule download:
    input:
        files=[f"{DATASET}/urls.parquet"],
        parts=expand(f"{DATASET}/download/{{part}}.json", part=PARTS),
    output:
        manifest=f"{DATASET}/download/manifest.json",
    log:
        f"{DATASET_LOGS}/download/manifest.log",
    localrule: True
    params:
        stage="download",
        settings=stage_settings(PROJECT, "download"),
    script:
        "../workflow/scripts/manifest.py"
