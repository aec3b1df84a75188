"""Stand-ins for the training of a candidate; a module of its own, since workers import it."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from benchmarks.load import stand_in
from nas_core.config import Settings
from nas_core.search.candidates import Outcome
from nas_core.space.genotype import Genotype
from nas_core.training.proxy_task import ProxyTask

PLAN = "NAS_TEST_PLAN"


def planned_score(
    shared_task: Callable[[], ProxyTask],
    settings: Settings,
    genotype: Genotype,
    thresholds: Sequence[float],
) -> tuple[Outcome, dict[str, bytes]]:
    """As `stand_in`, but what the file named by NAS_TEST_PLAN says comes before it.

    The file has one word a line; each call takes the first one away.
    """
    plan = Path(os.environ[PLAN])
    word, *rest = plan.read_text().split() or ["score"]
    plan.write_text("\n".join(rest))
    match word:
        case "raise":
            raise ZeroDivisionError("division by zero")
        case "memory":
            torch.empty(2**60)
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "slow":
            time.sleep(3)
    return stand_in(shared_task, settings, genotype, thresholds)
