"""Download: rows of a URL list become pictures in a shard, or a status that says why not.

Nothing is imported here: the processes that decode pictures are part of this package, and are to be small.
"""

# Raised by whoever changes what the stage writes: results of the version before are then made again.
VERSION = 7
