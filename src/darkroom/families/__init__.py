"""The families of networks that a run can train, one file each; `families.table` brings them together."""
