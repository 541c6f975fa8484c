"""All runs of a project on one page."""
