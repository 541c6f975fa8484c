"""What the running `snakemake` itself does beside starting jobs: hold its folder, watch its jobs, clear up."""
