"""Limits kept in memory: one gateway process serves the stack, so nothing has to be shared."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Hashable, Iterator

from narwhal.local.auth.errors import AuthError, over_request_rate

MAX_KEYS = 10_000  # beyond this, keys whose time has passed are swept out


class AttemptLimit:
    """At most `allowed` failures per key within `window_s` seconds; more is a 429.

    An attempt counts from its start, so that parallel guesses cannot slip past the limit
    together, and is taken back when it succeeds.
    """

    def __init__(
        self, allowed: int, window_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.allowed = allowed
        self.window_s = window_s
        self._clock = clock
        self._attempts: dict[Hashable, list[float]] = {}

    @contextlib.contextmanager
    def attempt(self, key: Hashable, *failures: str) -> Iterator[None]:
        """Count the block as a failure when it raises an AuthError with one of these codes.

        Success forgets the key's failures; anything else takes this attempt back.
        """
        now = self._clock()
        recent = [at for at in self._attempts.get(key, []) if now - at < self.window_s]
        if len(recent) >= self.allowed:
            self._attempts[key] = recent
            raise over_request_rate()
        self._attempts[key] = [*recent, now]
        self._sweep(now)
        try:
            yield
        except AuthError as error:
            if error.code not in failures:
                self._take_back(key, now)
            raise
        except BaseException:
            self._take_back(key, now)
            raise
        self._attempts.pop(key, None)

    def _take_back(self, key: Hashable, at: float) -> None:
        attempts = self._attempts.get(key, [])
        with contextlib.suppress(ValueError):
            attempts.remove(at)
        if not attempts:
            self._attempts.pop(key, None)

    def _sweep(self, now: float) -> None:
        if len(self._attempts) <= MAX_KEYS:
            return
        self._attempts = {
            key: attempts
            for key, attempts in self._attempts.items()
            if now - attempts[-1] < self.window_s
        }


class MailInterval:
    """One mail of a kind to an address every `interval_s` seconds, whether it is known or not.

    Deciding before the look-up keeps the answer from telling which addresses have an account.
    """

    def __init__(self, interval_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.interval_s = interval_s
        self._clock = clock
        self._sent: dict[tuple[str, str], float] = {}

    @contextlib.contextmanager
    def slot(self, kind: str, address: str) -> Iterator[None]:
        """Take the address's turn, or raise a 429; a failing block gives it back."""
        key, now = (kind, address), self._clock()
        before = self._sent.get(key)
        if before is not None and now - before < self.interval_s:
            left = math.ceil(self.interval_s - (now - before))
            raise AuthError(
                429,
                "over_email_send_rate_limit",
                f"For security purposes, you can only request this after {left} seconds.",
            )
        self._sent[key] = now
        if len(self._sent) > MAX_KEYS:
            self._sent = {k: at for k, at in self._sent.items() if now - at < self.interval_s}
        try:
            yield
        except BaseException:
            if before is None:
                self._sent.pop(key, None)
            else:
                self._sent[key] = before
            raise
