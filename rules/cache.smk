# Latents and text embeddings, encoded once and shared by runs with the same dataset, buckets and encoders; or
# only where the pictures and captions lie, where training encodes them.


if PROJECT.run.cache.online:

    rule cache_index:
        input:
            table=f"{DATASET}/download/{{part}}.parquet",
            captions=f"{DATASET}/recaption/{{part}}.parquet",
            buckets=f"{CACHE}/bucket/{{part}}.parquet",
            vae=component_files(PROJECT.run.cache.vae),
            text_encoders=text_encoder_files(),
        output:
            tensors=f"{CACHE}/cache/{{part}}.safetensors",
            table=f"{CACHE}/cache/{{part}}.parquet",
            manifest=f"{CACHE}/cache/{{part}}.json",
        log:
            f"{CACHE_LOGS}/cache/{{part}}.log",
        benchmark:
            f"{CACHE_LOGS}/cache/{{part}}.tsv"
        params:
            settings=settings(PROJECT.run.cache),
            vae=component(PROJECT.run.cache.vae),
            text_encoders=text_encoders(),
        script:
            "../workflow/scripts/cache_index.py"

else:

    rule cache_part:
        input:
            table=f"{DATASET}/download/{{part}}.parquet",
            tar=f"{DATASET}/download/{{part}}.tar",
            captions=f"{DATASET}/recaption/{{part}}.parquet",
            buckets=f"{CACHE}/bucket/{{part}}.parquet",
            vae=component_files(PROJECT.run.cache.vae),
            text_encoders=text_encoder_files(),
        output:
            tensors=f"{CACHE}/cache/{{part}}.safetensors",
            table=f"{CACHE}/cache/{{part}}.parquet",
            manifest=f"{CACHE}/cache/{{part}}.json",
        log:
            f"{CACHE_LOGS}/cache/{{part}}.log",
        benchmark:
            f"{CACHE_LOGS}/cache/{{part}}.tsv"
        params:
            settings=settings(PROJECT.run.cache),
            vae=component(PROJECT.run.cache.vae),
            text_encoders=text_encoders(),
        script:
            "../workflow/scripts/cache_part.py"


rule cache_null:
    input:
        text_encoders=text_encoder_files(),
    output:
        tensors=f"{CACHE}/cache/null.safetensors",
    log:
        f"{CACHE_LOGS}/cache/null.log",
    params:
        settings=settings(PROJECT.run.cache),
        text_encoders=text_encoders(),
    script:
        "../workflow/scripts/cache_null.py"


rule cache:
    input:
        recaption=f"{DATASET}/recaption/manifest.json",
        bucket=f"{CACHE}/bucket/manifest.json",
        files=[f"{CACHE}/cache/null.safetensors"],
        parts=expand(f"{CACHE}/cache/{{part}}.json", part=PARTS),
    output:
        manifest=f"{CACHE}/cache/manifest.json",
    log:
        f"{CACHE_LOGS}/cache/manifest.log",
    localrule: True
    params:
        stage="cache",
        settings=stage_settings(PROJECT, "cache"),
    script:
        "../workflow/scripts/manifest.py"
