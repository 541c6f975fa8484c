"""The kinds of prompts that models are judged by, one file each; `benchmarks.table` brings them together."""
