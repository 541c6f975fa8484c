"""The kinds of sources that a dataset's rows come from, one file each; `sources.table` brings them together."""
