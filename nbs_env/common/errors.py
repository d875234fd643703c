"""What a user is told: every exception of this project whose message is for people.

None but those about data or files is a ValueError: the parser of command lines would answer with a box.
"""

from __future__ import annotations


class ConfigError(Exception):
    """A setting that cannot work; the message names it, its value and the remedy."""


class DataError(ValueError):
    """Data that cannot be used; the message names the file or value, what was expected, and the remedy."""


class DataWarning(UserWarning):
    """Data that is used, but perhaps not as was meant; the message says how, and names some of the files."""


class RunError(Exception):
    """A run that cannot start; the message names the file or value and the remedy."""


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what to do."""


class CheckpointError(ValueError):
    """A file that cannot be read back; the message names it and the remedy."""


class WriteError(OSError):
    """A file that cannot be written; the message names it, the reason and the remedy."""
