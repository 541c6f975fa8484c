"""The scorers that a dataset can have computed, one file each; `scorers.table` brings them together."""
