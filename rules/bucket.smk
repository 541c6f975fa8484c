# An aspect-ratio bucket and a crop box for every kept picture, from tables alone.


rule bucket_part:
    input:
        table=f"{DATASET}/download/{{part}}.parquet",
        selection=f"{DATASET}/filter/{{part}}.parquet",
    output:
        buckets=f"{CACHE}/bucket/{{part}}.parquet",
        manifest=f"{CACHE}/bucket/{{part}}.json",
    log:
        f"{CACHE_LOGS}/bucket/{{part}}.log",
    benchmark:
        f"{CACHE_LOGS}/bucket/{{part}}.tsv"
    params:
        settings=settings(PROJECT.run.bucket),
    script:
        "../workflow/scripts/bucket_part.py"


rule bucket:
    input:
        filter=f"{DATASET}/filter/manifest.json",
        buckets=expand(f"{CACHE}/bucket/{{part}}.parquet", part=PARTS),
        parts=expand(f"{CACHE}/bucket/{{part}}.json", part=PARTS),
    output:
        summary=f"{CACHE}/bucket/buckets.json",
        manifest=f"{CACHE}/bucket/manifest.json",
    log:
        f"{CACHE_LOGS}/bucket/manifest.log",
    localrule: True
    params:
        stage="bucket",
        settings=stage_settings(PROJECT, "bucket"),
    script:
        "../workflow/scripts/bucket.py"
