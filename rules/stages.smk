# A target for each stage: `snakemake train` makes the training of the runs that were asked for. The rules that make
# something have wildcards, and their names say of what: a part, a manifest, a run.
for stage in STAGES:

    rule:
        name:
            stage
        input:
            manifests(stage),
        localrule: True
