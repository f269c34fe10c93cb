"""The command line: the only part of Headway that prints and exits."""

import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NoReturn

from headway.errors import HeadwayError
from headway.output_stream import OutputStream, finish_output, protect_messages, protect_work
from headway.output_text import printable
from headway.stop_signals import ignore_stop_signals, stop_signals

INTERRUPTED = 130
"""Exit code after Ctrl-C, as in shells. Commands for which Ctrl-C is the normal end have their own."""
WORK = {"train", "job", "serve"}
"""Commands whose work goes on whatever happens to what they print; for the others, printing is the work."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `headway`. An expected error is printed as one message and sets the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    if arguments is None:
        protect = protect_work if words[:1] and words[0] in WORK else protect_messages
        protect()
    try:
        with _beginning(words, own_process=arguments is None):
            from headway.cli.commands import app

            app(args=arguments)
    except HeadwayError as error:
        print(printable(f"headway: {error}"), file=sys.stderr)  # noqa: T201 - this is the command line
        _exit(error.exit_code, own_process=arguments is None)
    except OSError as error:
        if error.filename is None or error.strerror is None:
            raise
        print(printable(f"headway: {error.filename}: {error.strerror}"), file=sys.stderr)  # noqa: T201 - likewise
        _exit(HeadwayError.exit_code, own_process=arguments is None)
    except KeyboardInterrupt:
        _exit(INTERRUPTED, own_process=arguments is None)
    except SystemExit as exit_request:
        _exit(exit_request.code, own_process=arguments is None)


def _beginning(words: Sequence[str], *, own_process: bool) -> AbstractContextManager[None]:
    """What a command does before its modules are imported, which takes a moment.

    `headway train` starts its slowest part, the process that ranks are forked from. `headway serve` has nothing yet
    that a signal could leave behind.
    """
    if words[:1] == ["serve"] and own_process:
        for number in stop_signals():
            signal.signal(number, lambda *_: os._exit(0))
    if words[:1] != ["train"] or "--help" in words:
        return nullcontext()
    from headway.train.host.forkserver import rank_forkserver

    return rank_forkserver("headway.cli")


def _exit(code: Any, *, own_process: bool) -> NoReturn:
    """Exits. In a process of our own, skips the tear-down of a loaded torch, which takes most of a second."""
    if own_process and isinstance(sys.stdout, OutputStream):  # work: nothing holds up its end
        ignore_stop_signals()
    if own_process and "torch" in sys.modules and isinstance(code, int):
        logging.shutdown()
        finish_output()
        os._exit(code)
    sys.exit(code)
