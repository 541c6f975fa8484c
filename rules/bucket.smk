# An aspect-ratio bucket and a crop box for every kept picture, from tables alone.


rule bucket_part:
    input:
        table=of_job(f"{DATASET}/download/{{part}}.parquet"),
        selection=of_job(f"{DATASET}/filter/{{part}}.parquet"),
        # Where gates drop pictures for them.
        captions=of_job(
            f"{DATASET}/recaption/{{part}}.parquet", if_read_by("bucket", "recaption")
        ),
        rewritten=of_job(
            f"{DATASET}/rewrite/{{part}}.parquet", if_read_by("bucket", "rewrite")
        ),
    output:
        buckets=f"{CACHE}/bucket/{{part}}.parquet",
        manifest=f"{CACHE}/bucket/{{part}}.json",
    log:
        f"{CACHE_LOGS}/bucket/{{part}}.log",
    benchmark:
        f"{CACHE_LOGS}/bucket/{{part}}.tsv"
    params:
        made_with=made_with("bucket"),
        settings=of_run(lambda project: settings(project.run.bucket)),
    script:
        "../workflow/scripts/bucket_part.py"


rule bucket_manifest:
    input:
        filter=of_job(f"{DATASET}/filter/manifest.json"),
        recaption=of_job(
            f"{DATASET}/recaption/manifest.json", if_read_by("bucket", "recaption")
        ),
        rewrite=of_job(
            f"{DATASET}/rewrite/manifest.json", if_read_by("bucket", "rewrite")
        ),
        buckets=for_parts(f"{CACHE}/bucket/{{part}}.parquet"),
        parts=for_parts(f"{CACHE}/bucket/{{part}}.json"),
    output:
        summary=f"{CACHE}/bucket/buckets.json",
        manifest=f"{CACHE}/bucket/manifest.json",
    log:
        f"{CACHE_LOGS}/bucket/manifest.log",
    localrule: True
    params:
        stage="bucket",
        settings=all_settings("bucket"),
    script:
        "../workflow/scripts/bucket.py"
