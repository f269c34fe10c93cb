"""The exception tree: every error that Headway raises on purpose.

HeadwayError                    exit code 1
├── UsageError                  exit code 2: wrong use of the command; says what to do instead
│   ├── RecipeError             invalid recipe; names file, line and the nearest known key
│   │   └── UnknownKindError    it names a kind that no installed package has
│   ├── DataError               training data is missing, empty or does not fit
│   ├── ClusterError            SLURM is missing, does not respond, or refuses; quotes its error
│   └── EndpointError           invalid URL of an S3 server
├── StoreError                  a request to the object store failed; names the object
│   ├── MissingObject           the key does not exist
│   ├── ExistingObject          a create-only write found that the key exists
│   ├── PastEndError            a range begins after the last byte of its object
│   ├── UploadAbortedError      another process aborted a multipart upload
│   └── TransientError          a request failed and may succeed when it is retried
├── ServeError                  the model server cannot start or go on; quotes the engine's error
├── DamageError                 stored bytes differ from what was written; names them
└── JournalError                the run's journal refuses this process
    ├── HeldError               another process trains this run; names it
    └── FencedError             a newer attempt has claimed this run; this process must exit

A message says what happened, to what, and what to do about it.
"""


class HeadwayError(Exception):
    """Base of all expected errors. The command line exits with `exit_code`."""

    exit_code = 1


class UsageError(HeadwayError):
    """A command, option or setting is wrong."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe is invalid, or does not fit the run it is used with."""


class UnknownKindError(RecipeError):
    """A recipe names a kind of optimizer or model that no installed package has."""


class DataError(UsageError):
    """Training data is missing, empty, or does not match its tokenizer or recipe."""


class ClusterError(UsageError):
    """SLURM is missing, does not respond, or refuses."""


class EndpointError(UsageError):
    """The URL of an S3 server is invalid."""


class StoreError(HeadwayError):
    """A request to the object store failed; the message names the object and the cause."""


class MissingObject(StoreError):
    """The key does not exist."""


class ExistingObject(StoreError):
    """A create-only write found that the key exists."""


class PastEndError(StoreError):
    """A range begins after the last byte of its object."""


class UploadAbortedError(StoreError):
    """Another process aborted a multipart upload."""


class TransientError(StoreError):
    """A request failed and may succeed when it is retried. Its cause is the original exception."""


class ServeError(HeadwayError):
    """The model server cannot start or go on."""


class DamageError(HeadwayError):
    """Stored bytes do not match their recorded checksum or shape."""


class JournalError(HeadwayError):
    """The run's journal refuses this process."""


class HeldError(JournalError):
    """Another live process holds the run."""


class FencedError(JournalError):
    """A newer attempt has claimed the run."""


CLASSES = {
    kind.__name__: kind
    for kind in list(globals().values())
    if isinstance(kind, type) and issubclass(kind, HeadwayError)
}
"""Every error of the tree, by name. An error crosses processes as its name and message."""


def revive(name: str, message: str) -> HeadwayError:
    """The error of another process, by the name of its class; a HeadwayError if the tree has no such class."""
    return CLASSES.get(name, HeadwayError)(message)
