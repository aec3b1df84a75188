"""How far the reward is the network's, and how far the training seed's.

python -m benchmarks.reliability [--networks N] [--seeds K] [-p PROFILE] [-S KEY=VALUE ...] [--json]

Trains random networks within search.constraints on the proxy task, as a search would without early
stopping, each with several seeds of the training; meta-val and the crops of stage A are the same
for all. Each is scored on meta-val, which gives the reward, and on val at the proxy's size. -S
gives another proxy, for example search.proxy.epochs_a=10. Trainings lie in artifacts/reliability:
what is there is not trained again, so an interrupted study goes on, and more networks or seeds add
to it.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.command import AsJson, Overrides, Profile, errors_in_words, kept
from nas_core.analysis.rank_agreement import proxy_identity
from nas_core.analysis.reliability import reliability
from nas_core.base.files import digest_of, write_json
from nas_core.base.paths import artifacts_folder, prepared_folder
from nas_core.base.project import project_dir
from nas_core.config import Settings
from nas_core.data.prepared import PreparedData, Split
from nas_core.data.preparing import prepare
from nas_core.data.transforms import resized
from nas_core.loading import load_settings
from nas_core.models.compute import Compute
from nas_core.models.encoder import encoder_weights
from nas_core.models.state import state_digest
from nas_core.search.candidates import proxy_task
from nas_core.search.identity import candidate_seed
from nas_core.search.sampling import sample_architectures
from nas_core.space.genotype import Genotype
from nas_core.training.full import evaluate
from nas_core.training.proxy import train_candidate
from nas_core.training.proxy_task import ProxyTask

SCORES = ("reward", "val_reward")


def measure(settings: Settings, root: Path, num: int, num_seeds: int) -> dict[str, Any]:
    """Every run, and the figures of `reliability` on meta-val and on val.

    Raises:
        NasError: the data or weights cannot be used, too few random networks are within the limit,
            or a training failed.
    """
    data = prepare(settings.dataset, root, prepared_folder(root, settings))
    architectures = sample_architectures(settings, root, data, num)
    folder = _folder(settings, root, data)
    task = proxy_task(settings, root)
    val = resized(
        data.split("val"),
        settings.search.proxy.height,
        settings.search.proxy.width,
        frame=(data.height, data.width),
        ignore_index=data.ignore_index,
    )
    jobs = [(seed, genotype) for seed in range(num_seeds) for genotype in architectures.values()]
    runs = [
        _run(task, val, genotype, seed, folder)
        for seed, genotype in track(jobs, "training", console=Console(stderr=True))
    ]
    return {
        "settings": settings.search.model_dump(mode="json", include={"meta_val", "proxy"}),
        "num_networks": num,
        "num_seeds": num_seeds,
        "cpu_seconds": float(np.mean([run["cpu_seconds"] for run in runs])),
        **{score: figures(runs, score, settings.seed) for score in SCORES},
        "runs": runs,
    }


def figures(runs: list[dict[str, Any]], score: str, seed: int) -> dict[str, Any]:
    """`reliability` of one score over runs with `id` and `seed`."""
    by_network: dict[str, list[float]] = {}
    for run in sorted(runs, key=lambda run: run["seed"]):
        by_network.setdefault(run["id"], []).append(run[score])
    return reliability(list(by_network.values()), seed=seed).model_dump()


def _folder(settings: Settings, root: Path, data: PreparedData) -> Path:
    compute = Compute.from_settings(settings.compute)
    encoder = state_digest(encoder_weights(settings, root))
    identity = proxy_identity(settings, data.search_hash, encoder, compute)
    return artifacts_folder(root) / "reliability" / f"{settings.name}-{digest_of(identity)}"


def _run(
    task: ProxyTask, val: Split, genotype: Genotype, seed: int, folder: Path
) -> dict[str, Any]:
    """One training's row: id, seed, reward, val_reward, CPU seconds of the training."""
    path = folder / f"{genotype.id}-{seed}.json"
    if not path.exists():
        started = time.process_time()
        result = train_candidate(task, genotype, seed=candidate_seed(seed, genotype.id))
        seconds = time.process_time() - started
        scored = evaluate(result.segmenter, val, task.num_classes, task.ignore_index)
        rewards = {"reward": result.scores[-1], "val_reward": scored.reward}
        write_json(path, {"id": genotype.id, "seed": seed, **rewards, "cpu_seconds": seconds})
    return kept(path, "id", "seed", "reward", "val_reward", "cpu_seconds")


@errors_in_words
def main(
    profile: Profile = "camvid",
    overrides: Overrides = None,
    networks: Annotated[int, typer.Option(min=4, help="Random networks.")] = 12,
    seeds: Annotated[int, typer.Option(min=2, help="Trainings of each.")] = 4,
    as_json: AsJson = False,
) -> None:
    """Train random networks with several seeds each on the proxy task of a profile."""
    root = project_dir()
    settings = load_settings(profile, overrides or [], root=root)
    found = measure(settings, root, networks, seeds)
    if as_json:
        print(json.dumps(found))
    else:
        _show(found)


def _show(found: dict[str, Any]) -> None:
    table = Table(
        "score", "networks", "sd within", "sd between", "reliability", "tau of two runs",
        title=f"{found['num_seeds']} runs of each, {found['cpu_seconds']:.1f} CPU seconds a run",
    )  # fmt: skip
    for score, where in zip(SCORES, ("meta-val", "val"), strict=True):
        for half, one in (("", found[score]), (", upper half", found[score]["upper_half"])):
            low, high = one["reliability_interval"]
            tau = one["kendall_tau"]
            table.add_row(
                where + half,
                str(one["num_networks"]),
                f"{one['sd_within']:.4f}",
                f"{one['sd_between']:.4f}",
                f"{one['reliability']:.2f} ({low:.2f}, {high:.2f})",
                "-" if tau is None else f"{tau:.2f}",
            )
    Console(width=None if sys.stdout.isatty() else 100).print(table)


if __name__ == "__main__":
    typer.run(main)
