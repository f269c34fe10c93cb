"""The ledger of an attempt: the time of each rank by phase."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from headway.errors import MissingObject
from headway.objectstore.protocol import Store
from headway.runs import keys


class LedgerRow(BaseModel):
    """The time of one rank in one attempt."""

    model_config = ConfigDict(frozen=True)

    attempt: int
    rank: int
    started: float
    """Start of the accounted time [s since 1970]."""
    until: float
    """End of the accounted time [s since 1970]."""
    phases: Mapping[str, float]
    """Time by phase [s]."""
    tokens: int


def read_ledger(store: Store, run: str, attempt: int) -> list[LedgerRow]:
    """The rows of an attempt, one per rank, as of its last commit or its end; none before the first commit."""
    try:
        text = store.get(keys.ledger(run, attempt)).decode()
    except MissingObject:
        return []
    return [LedgerRow.model_validate_json(line) for line in text.splitlines()]
