"""The exception tree. Every error that Headway raises on purpose is one of these.

HeadwayError                    exit code 1
├── UsageError                  exit code 2: the command cannot mean anything; says what instead
│   ├── RecipeError             a recipe is wrong; names file, line and the nearest known key
│   ├── DataError               the data that a recipe names is missing, empty or does not fit
│   ├── ClusterError            SLURM is not there, does not answer, or refuses; says what it said
│   └── EndpointError           the URL of an S3 server cannot be one
├── StoreError                  the run store could not do what was asked; names the object
│   ├── MissingObject           no object has that key
│   ├── ExistingObject          a create-only write found the key taken
│   ├── PastEndError            a range begins after the last byte of its object
│   ├── UploadAbortedError      an upload in parts was aborted by somebody else
│   └── TransientError          a request failed, and may succeed if it is sent again
├── ServeError                  a model could not be served, or not any more; says what its engine said
├── DamageError                 bytes in the store are not the bytes that were written; names them
└── JournalError                the run's journal does not let this process go on
    ├── HeldError               another process is training this run; says who
    └── FencedError             a newer attempt has claimed this run; this one must leave

A message says what happened, to what, and what to do about it.
"""


class HeadwayError(Exception):
    """Base of all expected errors; `exit_code` is what the command line leaves with."""

    exit_code = 1


class UsageError(HeadwayError):
    """The request itself is wrong."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe is wrong, or does not fit the run it is used with."""


class DataError(UsageError):
    """Training data is missing, empty, or does not match its tokenizer or recipe."""


class ClusterError(UsageError):
    """SLURM is not there, does not answer, or refuses."""


class EndpointError(UsageError):
    """The URL of an S3 server cannot be one."""


class StoreError(HeadwayError):
    """The run store failed; the message names the object and the cause."""


class MissingObject(StoreError):
    """No object has that key."""


class ExistingObject(StoreError):
    """A create-only write found the key taken."""


class PastEndError(StoreError):
    """A range begins after the last byte of its object."""


class UploadAbortedError(StoreError):
    """An upload in parts was aborted by somebody else."""


class TransientError(StoreError):
    """A request failed, and may succeed if it is sent again. Its cause is the failure itself."""


class ServeError(HeadwayError):
    """A model could not be served, or not any more."""


class DamageError(HeadwayError):
    """Stored bytes do not match their recorded checksum or shape."""


class JournalError(HeadwayError):
    """The journal does not let this process go on."""


class HeldError(JournalError):
    """Another process is alive on this run."""


class FencedError(JournalError):
    """A newer attempt has claimed this run."""
