"""The command line: the only part of Headway that prints or leaves."""

import sys
from collections.abc import Sequence

from headway.errors import HeadwayError

INTERRUPTED = 130
"""Exit code of what Ctrl-C broke off, as shells have it; commands that end in order on Ctrl-C have their own."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `headway`; an expected error is one message and its exit code."""
    try:
        from headway.cli.commands import app

        app(args=arguments)
    except HeadwayError as error:
        print(f"headway: {error}", file=sys.stderr)  # noqa: T201 - this is the command line
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
