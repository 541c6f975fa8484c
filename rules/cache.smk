# Latents and text embeddings, encoded once and shared by runs with the same dataset, buckets and encoders; or
# only where the pictures and captions lie, where training encodes them (`cache.online`).


rule cache_part:
    input:
        table=of_job(f"{DATASET}/download/{{part}}.parquet"),
        tar=of_job(f"{DATASET}/download/{{part}}.tar", unless_online),
        captions=of_job(f"{DATASET}/recaption/{{part}}.parquet"),
        rewritten=of_job(f"{DATASET}/rewrite/{{part}}.parquet", if_rewritten),
        buckets=f"{CACHE}/bucket/{{part}}.parquet",
        vae=of_run(lambda project: component_files(project.run.cache.vae)),
        text_encoders=of_run(text_encoder_files),
    output:
        tensors=f"{CACHE}/cache/{{part}}.safetensors",
        table=f"{CACHE}/cache/{{part}}.parquet",
        manifest=f"{CACHE}/cache/{{part}}.json",
    log:
        f"{CACHE_LOGS}/cache/{{part}}.log",
    benchmark:
        f"{CACHE_LOGS}/cache/{{part}}.tsv"
    params:
        made_with=made_with("cache"),
        settings=of_run(lambda project: settings(project.run.cache)),
        vae=of_run(lambda project: component(project.run.cache.vae)),
        text_encoders=of_run(text_encoders),
    script:
        "../workflow/scripts/cache_part.py"


rule cache_null:
    input:
        text_encoders=of_run(text_encoder_files),
    output:
        tensors=f"{CACHE}/cache/null.safetensors",
    log:
        f"{CACHE_LOGS}/cache/null.log",
    benchmark:
        f"{CACHE_LOGS}/cache/null.tsv"
    params:
        version=VERSIONS["cache"]["version"],
        settings=of_run(lambda project: settings(project.run.cache)),
        text_encoders=of_run(text_encoders),
    script:
        "../workflow/scripts/cache_null.py"


rule cache_manifest:
    input:
        recaption=of_job(f"{DATASET}/recaption/manifest.json"),
        rewrite=of_job(f"{DATASET}/rewrite/manifest.json", if_rewritten),
        bucket=f"{CACHE}/bucket/manifest.json",
        files=[f"{CACHE}/cache/null.safetensors"],
        parts=for_parts(f"{CACHE}/cache/{{part}}.json"),
    output:
        manifest=f"{CACHE}/cache/manifest.json",
    log:
        f"{CACHE_LOGS}/cache/manifest.log",
    localrule: True
    params:
        stage="cache",
        settings=all_settings("cache"),
    script:
        "../workflow/scripts/manifest.py"
