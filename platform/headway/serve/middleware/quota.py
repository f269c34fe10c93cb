"""Quotas of tenants: requests per minute, and tokens of prompts and completions per minute.

A request is charged an estimate of its tokens before it passes. When its response is complete, the engine's count
replaces the estimate: the excess is refunded, or the rest charged on top, and later requests wait.
"""

import math
from collections.abc import Mapping

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headway.serve.middleware.http_middleware import HttpMiddleware
from headway.serve.openai_error import ApiError
from headway.serve.request_context import RequestContext, body_of, context_of
from headway.serve.routes import HttpRoute
from headway.serve.tenants.estimate import estimate_tokens
from headway.serve.tenants.key_file import Quota
from headway.serve.tenants.lookup import Tenants
from headway.serve.tenants.meter import Charge, Meter, Usage

REQUESTS, TOKENS = "requests", "tokens"
"""Units of quotas, as OpenAI's headers name them."""
SHED_STATUSES = (429, 503)
"""Statuses with which inner middleware sheds a request; a shed request costs nothing."""


class QuotaEnforcement(HttpMiddleware):
    """Middleware that enforces the tenants' quotas. It must be inside `Buffering`."""

    def __init__(self, app: ASGIApp, tenants: Tenants, meter: Meter) -> None:
        super().__init__(app)
        self.tenants, self.meter = tenants, meter

    def applies(self, route: HttpRoute) -> bool:
        """Whether its requests are charged."""
        return route.takes_body

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Charge the request and pass it on, or refuse it with 429, or with 400 if its cost exceeds the whole quota."""
        context = context_of(scope)
        if quota := self.tenants.quota_of(context.tenant):
            costs = {REQUESTS: 1}
            if quota.tokens_per_minute:
                costs[TOKENS] = estimate_tokens(body_of(scope))
            charges = _RequestCharges(self.meter, quota, context)
            await charges.check(costs)
            await charges.charge(costs)
            context.response.on_start.append(charges.add_headers)
            context.response.on_end.append(charges.correct)  # before the client gets the end and sends its next request
            context.on_close.append(charges.correct)  # again: the engine may stop after the end
        await self.app(scope, receive, send)


class _RequestCharges:
    """The charges of one request against its tenant's quota."""

    def __init__(self, meter: Meter, quota: Quota, context: RequestContext) -> None:
        self.meter, self.context = meter, context
        limits = {REQUESTS: quota.requests_per_minute, TOKENS: quota.tokens_per_minute}
        self.limits = {unit: limit for unit, limit in limits.items() if limit}
        self.charges: dict[str, Charge] = {}

    async def check(self, costs: Mapping[str, int]) -> None:
        """Check whether the quota allows `costs` now.

        Raises:
            ApiError: it does not.
        """
        waits: dict[str, float] = {}
        usages: dict[str, Usage] = {}
        for unit, limit in self.limits.items():
            if costs[unit] > limit:
                raise await self._exceeds_quota(unit, costs[unit], limit)
            usages[unit] = await self.meter.usage(self._name(unit))
            waits[unit] = usages[unit].seconds_until(limit - costs[unit])
        unit = max(waits, key=waits.__getitem__)
        if not waits[unit]:
            return
        seconds = math.ceil(waits[unit])
        message = (
            f"The quota is {self.limits[unit]} {unit} per minute, of which {math.ceil(usages[unit].total)} are used; "
            f"this request counts as {costs[unit]}. Try again in {seconds} s."
        )
        headers = {"Retry-After": str(seconds), **await self._headers()}
        raise ApiError(429, message, kind=unit, code="rate_limit_exceeded", headers=headers)

    async def charge(self, costs: Mapping[str, int]) -> None:
        """Charge the estimated tokens of a request to its tenant."""
        self.charges = {unit: await self.meter.charge(self._name(unit), costs[unit]) for unit in self.limits}

    async def add_headers(self, message: Message) -> None:
        """Add the remaining quota to the headers of the response; refund all if the service shed the request."""
        if message["status"] in SHED_STATUSES:
            await self._refund()
        headers = MutableHeaders(scope=message)
        for name, value in (await self._headers()).items():
            headers.append(name, value)

    async def correct(self) -> None:
        """Replace the estimated tokens by those that the engine has counted so far."""
        if TOKENS in self.charges:
            tokens = self.context.prompt_tokens + self.context.generated_tokens
            await self.meter.adjust(self.charges[TOKENS], tokens)

    async def _refund(self) -> None:
        for charge in self.charges.values():
            await self.meter.adjust(charge, 0)

    async def _exceeds_quota(self, unit: str, cost: int, limit: int) -> ApiError:
        """The error of a request that costs more than the whole quota: a 400, because clients retry a 429."""
        message = (
            f"The quota is {limit} {unit} per minute, and this request counts as {cost}, so it can never pass. "
            "Send a shorter prompt, or ask for fewer tokens (max_tokens) or fewer choices (n)."
        )
        return ApiError(400, message, kind=unit, code="rate_limit_exceeded", headers=await self._headers())

    async def _headers(self) -> dict[str, str]:
        """Rate-limit headers as OpenAI's API has them."""
        headers = {}
        for unit, limit in self.limits.items():
            usage = await self.meter.usage(self._name(unit))
            headers[f"x-ratelimit-limit-{unit}"] = str(limit)
            headers[f"x-ratelimit-remaining-{unit}"] = str(max(0, math.floor(limit - usage.total)))
            headers[f"x-ratelimit-reset-{unit}"] = _duration(usage.seconds_until(0))
        return headers

    def _name(self, unit: str) -> str:
        return f"{unit}/{self.context.tenant}"


def _duration(seconds: float) -> str:
    """Format a duration in Go's notation, rounded up: `0s`, `350ms`, `7s`, `1m30s`."""
    if 0 < seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
