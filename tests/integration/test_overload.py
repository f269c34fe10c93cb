"""More requests than a service can do, whoever sends them: each is answered whole or told when to come again."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench import overload
from bench.overload import Outcome

from headway.serve.tenants import KeyStore
from tests.integration.serving import Served

pytestmark = pytest.mark.slow

SECONDS = 8.0
FLOOD = 100.0
"""Requests a second: far more than two streams at a time can do."""
QUOTA = 20


class Site:
    """A service with few places, and the keys of its tenants."""

    def __init__(self, model: Path, folder: Path) -> None:
        keys = KeyStore(folder / "keys.json")
        self.key = {tenant: keys.add(tenant) for tenant in ("all", "steady", "loud")}
        keys.limit("loud", requests=QUOTA)
        self.served = Served(model, "--keys", str(keys.path), "--streams", "2", "--queue", "2")
        self.url = f"http://127.0.0.1:{self.served.port}/v1/completions"

    async def ask(self, tenant: str, per_second: float) -> Outcome:
        """Requests that come at random."""
        return await overload.opened(self.url, self.key[tenant], per_second, SECONDS, seed=1)


@pytest.fixture
def site(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """One service."""
    monkeypatch.setattr(overload, "NAME", "tiny")
    site = Site(exported, tmp_path)
    try:
        site.served.await_ready()
        yield site
    finally:
        site.served.clean_up()


def test_what_is_too_much_is_told_when_to_come_again(site: Site) -> None:
    """No other error and no broken stream; nor where the flood is that of one tenant, beyond its quota."""
    done = asyncio.run(site.ask("all", FLOOD))
    assert set(done.statuses) == {200, 429}
    assert (done.untold, done.broken) == (0, 0)
    assert len(done.firsts) == done.statuses[200]

    async def both() -> tuple[Outcome, Outcome]:
        return await asyncio.gather(site.ask("steady", 1.0), site.ask("loud", FLOOD))

    steady, loud = asyncio.run(both())
    assert set(loud.statuses) == {200, 429}
    assert 1 <= loud.statuses[200] <= 2 * QUOTA
    assert (loud.untold, loud.broken, steady.broken) == (0, 0, 0)
    assert set(steady.statuses) <= {200, 429}
    assert site.served.stop() == 0
