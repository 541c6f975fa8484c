"""Training of autoencoders: pictures to an AutoencoderKL folder, and what it loses beside another one.

VERSION is raised by every change of what the stage writes.
"""

VERSION = 1
