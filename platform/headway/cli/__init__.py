"""The command line: the only part of Headway that prints or leaves."""

import logging
import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NoReturn

from headway.errors import HeadwayError

INTERRUPTED = 130
"""Exit code of what Ctrl-C broke off, as shells have it; commands that end in order on Ctrl-C have their own."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `headway`; an expected error is one message and its exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        with _prepared(words):
            from headway.cli.commands import app

            app(args=arguments)
    except HeadwayError as error:
        print(f"headway: {error}", file=sys.stderr)  # noqa: T201 - this is the command line
        _leave(error.exit_code, at_once=arguments is None)
    except KeyboardInterrupt:
        _leave(INTERRUPTED, at_once=arguments is None)
    except SystemExit as leaving:
        _leave(leaving.code, at_once=arguments is None)


def _prepared(words: Sequence[str]) -> AbstractContextManager[None]:
    """Begin with what takes longest, before the command line itself is loaded."""
    if words[:1] != ["train"] or "--help" in words:
        return nullcontext()
    from headway.train.forkserver import rank_forkserver

    return rank_forkserver("headway.cli")


def _leave(code: Any, *, at_once: bool) -> NoReturn:
    """End this process, `at_once` if it is ours alone: to take down a torch that was loaded takes most of a second."""
    if at_once and "torch" in sys.modules and isinstance(code, int):
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
