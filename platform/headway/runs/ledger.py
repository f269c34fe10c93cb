"""The ledger of an attempt: where the time of each of its ranks went."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from headway.errors import MissingObject
from headway.objectstore.protocol import Store
from headway.runs import keys


class LedgerRow(BaseModel):
    """Where the time of one rank of one attempt went."""

    model_config = ConfigDict(frozen=True)

    attempt: int
    rank: int
    started: float
    """Seconds since 1970."""
    until: float
    """Up to when the phases account [seconds since 1970]."""
    phases: Mapping[str, float]
    """Seconds by phase."""
    tokens: int


def read_ledger(store: Store, run: str, attempt: int) -> list[LedgerRow]:
    """The rows of an attempt, as of its last commit or its end."""
    try:
        text = store.get(keys.ledger(run, attempt)).decode()
    except MissingObject:
        return []
    return [LedgerRow.model_validate_json(line) for line in text.splitlines()]
