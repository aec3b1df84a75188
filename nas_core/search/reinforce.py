"""REINFORCE: Williams, "Simple statistical gradient-following algorithms", 1992."""

from __future__ import annotations

from nas_core.search.policy_gradient import PolicyGradient, Rollouts


class Reinforce(PolicyGradient):
    """One step a round, on that round's candidates alone."""

    name = "reinforce"

    def _update(self, new: Rollouts, baseline: float) -> dict[str, float]:
        advantages = (new.rewards - baseline).float()
        log_probs, entropies = self.controller.evaluate(new.choices)
        return self._step(-(advantages * log_probs.sum(dim=1)).mean(), entropies)
