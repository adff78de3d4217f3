"""How fast one peer may go."""


class Pace:
    """Credit that fills up to `burst` at `rate` per second; all times are passed in.

    Spending more than there is makes a debt, and the wait that pays it off.
    """

    def __init__(self, *, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._credit = burst
        self._at = now

    def spend(self, cost: float, now: float) -> float:
        """Take `cost` off the credit; returns the seconds until there is none owed."""
        self._fill(now)
        self._credit -= cost
        return max(0.0, -self._credit / self._rate)

    def allows(self, now: float) -> bool:
        """Take 1 off the credit if it is there; returns whether it was."""
        if self.is_spent(now):
            return False
        self._credit -= 1.0
        return True

    def is_spent(self, now: float) -> bool:
        """Whether there is less than 1 of credit."""
        self._fill(now)
        return self._credit < 1.0

    def _fill(self, now: float) -> None:
        self._credit = min(self._burst, self._credit + max(0.0, now - self._at) * self._rate)
        self._at = max(self._at, now)
