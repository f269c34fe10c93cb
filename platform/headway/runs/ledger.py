"""The ledger of an attempt: the time of each rank by phase."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict

from headway import strict_json
from headway.errors import DamageError, MissingObject
from headway.objectstore.protocol import Store, read_document
from headway.runs import keys
from headway.runs.field_types import Count, Moment, Seconds, Tokens
from headway.telemetry.phases import PHASES

LEDGER_BYTES = 16 << 20
"""Longest ledger [bytes]: about 50,000 ranks."""


def _known(phases: object) -> object:
    """The known phases of a row. Those of another Headway count for nothing here."""
    return {name: phases[name] for name in PHASES if name in phases} if isinstance(phases, Mapping) else phases


class LedgerRow(BaseModel):
    """The time of one rank in one attempt."""

    model_config = ConfigDict(frozen=True)

    attempt: Count
    rank: Count
    started: Moment
    """Start of the accounted time [s since 1970]."""
    until: Moment
    """End of the accounted time [s since 1970]."""
    phases: Annotated[Mapping[str, Seconds], BeforeValidator(_known)]
    """Time by phase [s]."""
    tokens: Tokens


def read_ledger(store: Store, run: str, attempt: int) -> list[LedgerRow]:
    """The rows of an attempt, one per rank, as of its last commit or its end; none before the first commit.

    Skips lines that are no rows, such as one that a power cut left behind.
    """
    rows: list[LedgerRow] = []
    with suppress(MissingObject, DamageError):
        for line in read_document(store, keys.ledger(run, attempt), LEDGER_BYTES).splitlines():
            with suppress(ValueError):
                rows.append(LedgerRow.model_validate(strict_json.parse(line)))
    return rows
