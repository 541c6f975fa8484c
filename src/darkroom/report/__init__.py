"""The report: one HTML page a run. Import from the module `report.build`."""

# Raised by whoever changes what the stage writes: results of the version before are then made again.
VERSION = 4
