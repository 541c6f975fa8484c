"""The metrics that are measured on drawn pictures, one file each; `metrics.table` brings them together."""

# Raised by whoever changes what the stage writes: results of the version before are then made again.
VERSION = 1
