"""Stand-ins for the training of a candidate; a module of its own, since workers import it."""

import hashlib
import json
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from nas_core.config import Settings
from nas_core.genotype import Genotype
from nas_core.search.candidates import candidate_files

PLAN = "NAS_TEST_PLAN"


def quick_score(
    folder: Path,
    settings: Settings,
    root: Path,
    genotype: dict[str, Any],
    thresholds: Sequence[float],
) -> dict[str, Any]:
    """A reward from the architecture's id, and small files in place of the real ones."""
    identity = Genotype.from_dict(genotype).id
    score = int(hashlib.sha256(identity.encode()).hexdigest()[:6], 16) / 16**6
    files = candidate_files(folder, identity)
    files["genotype"].parent.mkdir(parents=True, exist_ok=True)
    for name, path in files.items():
        path.write_text(json.dumps({"a": [1.0], "b": [0.5]} if name == "losses" else {}))
    return {
        "scores": [score] * len(thresholds),
        "metrics": {"mean_iou": score, "skipped_steps": 0.0},
        "seconds": {"stage_a": 0.01},
        "stopped_early": False,
    }


def planned_score(
    folder: Path,
    settings: Settings,
    root: Path,
    genotype: dict[str, Any],
    thresholds: Sequence[float],
) -> dict[str, Any]:
    """As `quick_score`, but what the file named by NAS_TEST_PLAN says comes before it.

    The file has one word a line; each call takes the first one away.
    """
    plan = Path(os.environ[PLAN])
    word, *rest = plan.read_text().split() or ["score"]
    plan.write_text("\n".join(rest))
    match word:
        case "hang":
            time.sleep(3600)
        case "raise":
            raise ZeroDivisionError("division by zero")
        case "memory":
            torch.empty(2**60)
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "slow":
            time.sleep(3)
    return quick_score(folder, settings, root, genotype, thresholds)
