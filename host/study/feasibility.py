"""Whether candidates meet the limits of a study, as far as is known of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from host.study.ledger import Ledger
from host.study.limits import ENERGY_TARGETS, Limit, Miss
from host.study.proposal import Proposal
from host.study.surrogates import Surrogates


@dataclass(frozen=True)
class Feasibility:
    """Holds candidates against limits: by what was measured of them, else by what is predicted."""

    limits: Sequence[Limit]
    ledger: Ledger
    surrogates: Surrogates

    def met(self, proposals: Sequence[Proposal]) -> list[bool]:
        """Which of them meet every limit, by measurement or with the certainty of upper bounds."""
        asked = self.ledger.keys
        waiting = [p for p in proposals if p.key not in asked]
        bounds = self.surrogates.upper_bounds(self.limits, waiting)
        sure = {p.key: bool((row <= 0).all()) for p, row in zip(waiting, bounds, strict=True)}
        return [
            sure[p.key] if p.key in sure else not self.failed(p) and self._largest(p) <= 0
            for p in proposals
        ]

    def may_be_met(self, proposal: Proposal) -> bool:
        """Whether the predicted values themselves, not their upper bounds, meet every limit."""
        if self.failed(proposal):
            return False
        return self._largest(proposal) <= 0

    def failed(self, proposal: Proposal) -> bool:
        """Whether a device was asked for this candidate and could not run it."""
        return proposal.key in self.ledger.keys and not self.ledger.complete(proposal.key)

    def is_too_large(self, proposal: Proposal) -> bool:
        """Whether the file alone is larger than a limit."""
        return any(
            limit.quantity == "model_bytes" and limit.excess(proposal.model_bytes) > 0
            for limit in self.limits
        )

    def misses(self, proposal: Proposal) -> list[Miss]:
        """Each limit, with the measured value where there is one, else the predicted one."""
        return [self._against(limit, proposal) for limit in self.limits]

    def _largest(self, proposal: Proposal) -> float:
        return max((miss.excess for miss in self.misses(proposal)), default=0.0)

    def _against(self, limit: Limit, proposal: Proposal) -> Miss:
        profile, quantity = limit.device, limit.quantity
        if quantity == "model_bytes" or profile is None:
            return Miss(limit, float(proposal.model_bytes), "computed")
        if self.ledger.outcome(proposal.key, profile) is None:
            prediction = self.surrogates.predict(profile, quantity, [proposal])[0]
            return Miss(limit, prediction.value, "predicted")
        if quantity == "power_watts":
            return Miss(limit, self._power(proposal.key, profile), "derived")
        value = self.ledger.upper_value(proposal.key, profile, quantity)
        # A device that failed to run the model does not meet the limit, and neither does one that
        # has no figure of what is limited.
        return Miss(limit, math.inf if value is None else value, "measured")

    def _power(self, key: str, profile: str) -> float:
        """The mean watts at the line's rate; infinite where nothing measured them."""
        power = self.ledger.power(key, profile)
        if power is None:
            return math.inf
        net_joules, idle_watts = power
        return idle_watts + self._rate(profile) * net_joules

    def _rate(self, profile: str) -> float:
        rate = self.surrogates.profiles[profile].rate_hertz
        if rate is None:
            raise ValueError("power without a rate: the configuration should have been refused")
        return rate


def profiles_with_energy(limits: Sequence[Limit]) -> frozenset[str]:
    """The profiles on which something limits energy or power."""
    return frozenset(
        limit.device
        for limit in limits
        if limit.device is not None and limit.quantity in ENERGY_TARGETS
    )
