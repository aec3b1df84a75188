"""One candidate: trained on the proxy task in a worker, and what is kept of it."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from nas_core.base.errors import NasError
from nas_core.base.files import MAX_JSON, json_bytes, read_limited, write_bytes
from nas_core.base.paths import prepared_folder
from nas_core.config import Settings
from nas_core.data.prepared import PreparedData
from nas_core.models.checkpoint import NetworkCard, load_segmenter, segmenter_bytes
from nas_core.models.compute import Compute
from nas_core.models.encoder import encoder_weights
from nas_core.search.candidate_files import Losses, candidate_files
from nas_core.search.identity import candidate_seed
from nas_core.space.genotype import Genotype
from nas_core.training.proxy import ProxyResult, train_candidate
from nas_core.training.proxy_task import ProxyTask, build_proxy_task


@dataclass(frozen=True)
class Outcome:
    """What became of a training, as far as the journal keeps it; see `journal.Record`."""

    scores: tuple[float, ...]
    metrics: dict[str, float]
    seconds: dict[str, float]
    stopped_early: bool


def score_candidate(
    shared_task: Callable[[], ProxyTask],
    settings: Settings,
    genotype: Genotype,
    thresholds: Sequence[float],
) -> tuple[Outcome, dict[str, bytes]]:
    """Train a candidate briefly and score it on meta-val. Needs no file: it may run anywhere.

    Returns:
        The outcome, and the contents of the files to keep, by the names of `candidate_files`.

    Raises:
        CandidateError: see `train_candidate`.
    """
    task = task_on_device(shared_task, settings)
    seed = candidate_seed(settings.seed, genotype.id)
    result = train_candidate(task, genotype, seed=seed, thresholds=thresholds)
    proxy = task.settings
    card = NetworkCard(
        genotype,
        task.classes,
        task.palette,
        proxy.agg_size,
        proxy.sep_repeats,
        encoder=task.encoder,
    )
    files = {
        "genotype": json_bytes(genotype.to_dict()),
        "losses": Losses(result.losses).to_bytes(),
        "confusion_matrix": result.confusion.csv_bytes(task.classes),
        "weights": segmenter_bytes(result.segmenter, card),
    }
    return _outcome(task, result), files


def confirm_candidate(
    shared_task: Callable[[], ProxyTask], settings: Settings, genotype: Genotype, seed: int
) -> Outcome:
    """As `score_candidate`, with another seed, to its end and without files.

    Raises:
        CandidateError: see `train_candidate`.
    """
    task = task_on_device(shared_task, settings)
    return _outcome(task, train_candidate(task, genotype, seed=seed))


def task_on_device(shared_task: Callable[[], ProxyTask], settings: Settings) -> ProxyTask:
    task = shared_task()
    device = Compute.from_settings(settings.compute).device  # sets the number of threads, too
    return task if device == task.compute.device else task.to(device)


def _outcome(task: ProxyTask, result: ProxyResult) -> Outcome:
    if task.compute.device.type == "cuda":
        # Another process may share the GPU.
        torch.cuda.empty_cache()
    metrics = {**result.confusion.metrics(), "skipped_steps": float(result.num_skipped_steps)}
    return Outcome(tuple(result.scores), metrics, result.seconds, result.stopped_early)


def keep_files(folder: Path, genotype_id: str, files: Mapping[str, bytes]) -> None:
    """Write what `score_candidate` returned.

    Raises:
        RunError: the disk does not take it.
    """
    paths = candidate_files(folder, genotype_id)
    for name, content in files.items():
        write_bytes(paths[name], content)


def damaged_files(folder: Path, genotype_id: str) -> list[str]:
    """Those of a candidate's files, by the names of `candidate_files`, that are missing, not whole
    or of another candidate."""
    return [
        name
        for name, path in candidate_files(folder, genotype_id).items()
        if not _is_whole(name, path, genotype_id)
    ]


def _is_whole(name: str, path: Path, genotype_id: str) -> bool:
    try:
        match name:
            case "genotype":
                return Genotype.load(path).id == genotype_id
            case "losses":
                Losses.read(path)
            case "weights":
                return load_segmenter(path)[1].genotype.id == genotype_id
            case _:
                text = read_limited(path, MAX_JSON).decode()
                rows = list(csv.reader(io.StringIO(text)))
                counts = [cell for row in rows[1:] for cell in row[1:]]
                return (
                    len(rows) > 1
                    and all(len(row) == len(rows) for row in rows)
                    and all(cell.isascii() and cell.isdecimal() for cell in counts)
                )
    except (NasError, OSError, ValueError, csv.Error):
        return False
    return True


@lru_cache(maxsize=1)
def proxy_task(settings: Settings, root: Path) -> ProxyTask:
    """What all candidates share, kept in the process. Settings are frozen, thus fit as a key."""
    return build_proxy_task(
        PreparedData.open(prepared_folder(root, settings)),
        encoder_weights(settings, root),
        settings.search.proxy,
        Compute.from_settings(settings.compute),
        meta_val=settings.search.meta_val,
        seed=settings.seed,
        encoder_name=settings.network.encoder,
    )
