"""dusuan: an operating system for AI computing centres that sells compute as a utility."""

__version__ = "0.1.0"
