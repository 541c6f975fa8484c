# The phase that a training goes on from is the same workflow with another run: its cache and training, under
# names of their own. What this run makes itself, or shares with it, has one rule.
PHASE = PROJECT.run.train.initial_run

if PHASE is not None:
    # A profile speaks of `train`; what it says holds for `initial_train` too.
    for overrides in (
        workflow.resource_settings._parsed_overwrite_resources,
        workflow.resource_settings._parsed_overwrite_threads,
    ):
        for name in list(overrides):
            overrides.setdefault(f"initial_{name}", overrides[name])

    module initial:
        snakefile:
            "../Snakefile"
        config:
            {"run": PHASE}

    if load_project(PHASE).cache_owner == PROJECT.cache_owner:

        use rule * from initial exclude all, urls, download_part, download, filter_score_part, filter_duplicates, filter_part, filter, recaption_part, recaption, bucket_part, bucket, cache_part, cache_null, cache, evaluate, report as initial_*

    else:

        use rule * from initial exclude all, urls, download_part, download, filter_score_part, filter_duplicates, filter_part, filter, recaption_part, recaption, evaluate, report as initial_*
