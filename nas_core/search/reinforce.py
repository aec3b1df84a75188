"""REINFORCE: Williams, "Simple statistical gradient-following algorithms", 1992."""

from __future__ import annotations

from nas_core.search.policy_gradient import PolicyGradient, Rollouts


class Reinforce(PolicyGradient):
    """One step a round, on that round's candidates alone."""

    name = "reinforce"

    def _update(self, new: Rollouts) -> dict[str, float]:
        advantages = self._advantages(new.rewards)
        log_probs, entropies = self.controller.evaluate(new.choices)
        return self._step(-(advantages * log_probs.sum(dim=1)).mean(), entropies)
