"""What a tenant may use by the minute: requests, and the tokens of their prompts and answers.

Tokens are charged by an estimate before a request is passed on, and settled by what the engine has counted once its
answer is complete: what was too much is given back, what was too little is charged on top, and later requests wait.
"""

import math
from collections.abc import Mapping

from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headway.serve.estimate import estimate
from headway.serve.meter import Charge, Level, Meter
from headway.serve.refusal import refusal
from headway.serve.request_body import again
from headway.serve.request_context import RequestContext, context_of
from headway.serve.tenants import Quota, Tenants

REQUESTS, TOKENS = "requests", "tokens"
"""What there are quotas of, in the words of OpenAI's headers."""
UNSERVED = (429, 503)
"""Statuses by which a later link refuses: they cost nothing."""


class Quotas:
    """The link that holds tenants to their quotas; it stands behind `Body`, and passes on who has none."""

    def __init__(self, app: ASGIApp, tenants: Tenants, meter: Meter) -> None:
        self.app, self.tenants, self.meter = app, tenants, meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 429, or 400 if it could never pass."""
        call = context_of(scope) if scope["type"] == "http" and scope["method"] == "POST" else None
        quota = self.tenants.quota(call.tenant) if call else None
        if call is None or quota is None:
            await self.app(scope, receive, send)
            return
        costs = {REQUESTS: 1}
        if quota.tokens_per_minute:
            message = await receive()
            costs[TOKENS] = estimate(message.get("body", b""))
            receive = again(message, receive)
        account = _Account(self.meter, quota, call)
        if refused := await account.refused(costs):
            await refused(scope, receive, send)
            return
        await account.charge(costs)
        call.answer.at_head.append(account.say)
        call.answer.at_end.append(account.settle)  # before its end, lest the client be ahead of it
        try:
            await self.app(scope, receive, send)
        finally:  # also of an answer that was broken off
            await account.settle()


class _Account:
    """One request of a tenant, and what it costs."""

    def __init__(self, meter: Meter, quota: Quota, call: RequestContext) -> None:
        self.meter, self.call = meter, call
        limits = {REQUESTS: quota.requests_per_minute, TOKENS: quota.tokens_per_minute}
        self.limits = {what: limit for what, limit in limits.items() if limit}
        self.charges: dict[str, Charge] = {}

    async def charge(self, costs: Mapping[str, int]) -> None:
        """Charge it before it is passed on."""
        self.charges = {what: await self.meter.charge(self._name(what), costs[what]) for what in self.limits}

    async def say(self, head: Message) -> None:
        """Say in the head of an answer what is left."""
        if head["status"] in UNSERVED:
            await self.give_back()
        told = MutableHeaders(scope=head)
        for name, value in (await self.headers()).items():
            told.append(name, value)

    async def settle(self, _: Message | None = None) -> None:
        """Charge what the engine has counted so far, in place of what was charged."""
        if TOKENS in self.charges:
            await self.meter.settle(self.charges[TOKENS], self.call.prompt_tokens + self.call.generated_tokens)

    async def give_back(self) -> None:
        """It is as if it had never been asked."""
        for charge in self.charges.values():
            await self.meter.settle(charge, 0)

    async def refused(self, costs: Mapping[str, int]) -> JSONResponse | None:
        """The answer to a request that is not let through; None if it is."""
        waits: dict[str, float] = {}
        levels: dict[str, Level] = {}
        for what, limit in self.limits.items():
            if costs[what] > limit:
                return await self._never(what, costs[what], limit)
            levels[what] = await self.meter.level(self._name(what))
            waits[what] = levels[what].wait(limit - costs[what])
        what = max(waits, key=waits.__getitem__)
        if not waits[what]:
            return None
        seconds = math.ceil(waits[what])
        used = math.ceil(levels[what].used)
        told = (
            f"Your quota is {self.limits[what]} {what} a minute, {used} are used, and this request counts as "
            f"{costs[what]}. Try again in {seconds} s."
        )
        headers = {"Retry-After": str(seconds), **await self.headers()}
        return refusal(429, told, kind=what, code="rate_limit_exceeded", headers=headers)

    async def _never(self, what: str, cost: int, limit: int) -> JSONResponse:
        """No 429: a client that came again would come in vain."""
        told = (
            f"Your quota is {limit} {what} a minute, and this request counts as {cost}, so that it could never be let "
            "through. Send a shorter prompt, or ask for fewer tokens (max_tokens) or fewer answers (n)."
        )
        return refusal(400, told, kind=what, code="rate_limit_exceeded", headers=await self.headers())

    async def headers(self) -> dict[str, str]:
        """What is left of the quotas, as OpenAI's API tells it."""
        told = {}
        for what, limit in self.limits.items():
            level = await self.meter.level(self._name(what))
            told[f"x-ratelimit-limit-{what}"] = str(limit)
            told[f"x-ratelimit-remaining-{what}"] = str(max(0, math.floor(limit - level.used)))
            told[f"x-ratelimit-reset-{what}"] = _duration(level.wait(0))
        return told

    def _name(self, what: str) -> str:
        return f"{what}/{self.call.tenant}"


def _duration(seconds: float) -> str:
    """As Go writes it, rounded up: `0s`, `350ms`, `7s`, `1m30s`."""
    if 0 < seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
