"""The circuit breaker: when too much of what is tried fails, trying on only makes it worse. Pure.

A disk that is dying, a mount that went away, a service that answers nonsense: the first hundred failures say it, the
next hundred thousand only hide it.
"""

from dataclasses import dataclass

LEAST_TRIED = 20
"""So many must have been tried before a rate of failure means anything."""


@dataclass(slots=True, kw_only=True)
class Breaker:
    """Counts what was tried in one run. It opens above a number or a rate of failures, and stays open."""

    max_failures: int
    max_failure_rate: float
    tried: int = 0
    failed: int = 0
    reason: str | None = None  # why it opened; None while it is closed

    @property
    def is_open(self) -> bool:
        return self.reason is not None

    def allows(self, failed: int) -> bool:
        """Whether a step that has seen so many failures, not counted yet, may go on. Rates are looked at by `count`:
        within one step the failures may come before what went well."""
        return not self.is_open and self.failed + failed < self.max_failures

    def count(self, *, done: int = 0, failed: int = 0) -> None:
        """So many more were done, and so many failed."""
        self.tried += done + failed
        self.failed += failed
        if self.is_open:
            return
        told = f"{self.failed} of {self.tried} failed"
        if self.failed >= self.max_failures:
            self.reason = f"{told}; the limit is {self.max_failures} (work.max_failures)"
        elif self.tried >= LEAST_TRIED and self.failed > self.max_failure_rate * self.tried:
            self.reason = f"{told}; the limit is {self.max_failure_rate:.0%} of them (work.max_failure_rate)"
