"""The long part: searches, and full trainings of what is claimed and of what they find."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any

from benchmarks.gpu.box import Box
from nas_core.base.errors import CandidateError
from nas_core.base.paths import prepared_folder
from nas_core.config import Settings
from nas_core.data.prepared import PreparedData
from nas_core.data.preparing import prepare
from nas_core.models.compute import Compute
from nas_core.search.loop import Search
from nas_core.space.architectures import find_architecture
from nas_core.space.genotype import Genotype
from nas_core.training.record import Training
from nas_core.training.side_by_side import evaluate, side_by_side, train, training_workers

SEARCHES = ("search", "search-two-repeats")
Row = dict[str, Any]
Planned = tuple[str, Settings, Genotype]
"""A training: its label, and its settings with the seed."""


def run_search(box: Box, name: str, **values: Any) -> None:
    """A search of `Lengths.candidates`, and its best."""
    settings = box.with_settings(search__num_candidates=box.lengths.candidates, **values)
    with Search.open(settings, box.root) as search:
        try:
            with box.ending(search.workers):
                search.run()
        finally:
            best = search.ranked[: box.lengths.best]
            box.found[name] = {
                "candidates": len(search.candidates),
                "confirmations": len(search.journal.confirmations),
                "best": [
                    {"id": one.record.id, "reward": one.reward, "genotype": one.record.genotype}
                    for one in best
                ],
            }


def train_claims(box: Box) -> None:
    """The architectures whose scores are claimed, decided beforehand."""
    lengths = box.lengths
    settings = box.with_settings(train__splits="train+val", train__epochs=lengths.claim_epochs)
    networks = {name: find_architecture(name, {})[1] for name in lengths.claims}
    train_all(box, "claims", with_seeds(settings, networks, lengths.claim_seeds))


def train_best(box: Box) -> None:
    """The best of both searches."""
    settings = box.with_settings(train__splits="train", train__epochs=box.lengths.best_epochs)
    train_all(box, "best", with_seeds(settings, _best_of_searches(box), 1))


def train_held_out(box: Box) -> None:
    """The same without the recording `Lengths.held_out`, in the place of test; not if it lacks."""
    own = _without_recording(box)
    if own is box:
        box.found["held-out"] = {"trainings": [], "failed": [], "planned": 0}
        return
    settings = own.with_settings(train__splits="train", train__epochs=box.lengths.best_epochs)
    train_all(own, "held-out", with_seeds(settings, _best_of_searches(box), 1))


def train_teacher(box: Box) -> None:
    """The best by val and the recording, wider and longer, to teach."""
    own, lengths = _without_recording(box), box.lengths
    settings = own.with_settings(
        train__splits="train",
        train__epochs=lengths.teacher_epochs,
        network__agg_size=lengths.teacher_agg_size,
    )
    train_all(own, "teacher", [("teacher", settings, _winner(box))])


def train_taught(box: Box) -> None:
    """The best by val and the recording with that teacher, and without one."""
    own, planned = _without_recording(box), list[Planned]()
    for label, teacher in (("alone", "none"), ("taught", _teacher(box))):
        settings = own.with_settings(
            train__splits="train",
            train__epochs=box.lengths.best_epochs,
            train__teacher=teacher,
        )
        planned += with_seeds(settings, {label: _winner(box)}, box.lengths.taught_seeds)
    train_all(own, "taught", planned)


def train_winner(box: Box) -> None:
    """The best by val and the recording as long as it may gain by it, taught if that was better."""
    settings = box.with_settings(
        train__splits="train+val",
        train__epochs=box.lengths.winner_epochs,
        train__teacher=_teacher(box) if teacher_helps(box.found) else "none",
    )
    networks = {decided(box.found): _winner(box)}
    train_all(box, "winner", with_seeds(settings, networks, box.lengths.winner_seeds))


def decided(found: dict[str, Any]) -> str:
    """The id of the network whose mean of val and of what was held out is highest.

    One that lacks either score, as its training failed, is left out where others have both.
    """
    val: dict[str, float] = {row["id"]: row["val"] for row in found["best"]["trainings"]}
    held_out: dict[str, float] = {row["id"]: row["test"] for row in found["held-out"]["trainings"]}
    means = {one: (val[one] + held_out[one]) / 2 for one in val.keys() & held_out.keys()} or val
    return max(sorted(means), key=lambda one: means[one])


def teacher_helps(found: dict[str, Any]) -> bool:
    """Whether the taught have the higher mean of val and of what was held out, by all seeds."""
    means: dict[str, list[float]] = {"alone": [], "taught": []}
    for row in found["taught"]["trainings"]:
        scores = [row[name] for name in ("val", "test") if name in row]
        means[row["label"]].append(statistics.mean(scores))
    if not all(means.values()):
        return False
    return statistics.mean(means["taught"]) > statistics.mean(means["alone"])


def with_seeds(settings: Settings, networks: dict[str, Genotype], num: int) -> list[Planned]:
    """Each with each seed."""
    return [
        (label, settings.model_copy(update={"seed": seed}), genotype)
        for seed in range(num)
        for label, genotype in networks.items()
    ]


def train_all(box: Box, step: str, planned: Iterable[Planned]) -> None:
    """Train them, and score those that have a split for it on test, once.

    They are trained on val too, or a recording takes the place of test: then that is no look.

    One that fails stands among the failed, and is not tried again once the others are done.

    Raises:
        CandidateError: all of them fail.
    """
    planned = list(planned)
    rows, failed = list[Row](), list[Row]()
    settings = planned[0][1]
    box.found[step] = {
        "trainings": rows,
        "failed": failed,
        "planned": len(planned),
        "epochs": settings.train.epochs,
    }

    def job(label: str, own: Settings, genotype: Genotype) -> Row:
        row: Row = {"label": label, "id": genotype.id, "seed": own.seed}
        try:
            folder = train(workers, own, box.root, label, genotype)
            row["folder"] = str(folder.relative_to(box.root))
            if own.train.splits == "train":
                row["val"] = Training.read(folder / "training.json").val["mean_iou"]
            if own.train.splits != "train" or own.dataset.held_out:
                row["test"] = evaluate(workers, own, box.root, label, folder).mean_iou
            return row
        except CandidateError as error:
            return row | {"reason": str(error)}

    compute = Compute.from_settings(settings.compute)
    jobs = [(label, partial(job, label, own, genotype)) for label, own, genotype in planned]
    with box.ending(training_workers(settings, compute, len(jobs))) as workers:
        for _, row in side_by_side(workers, jobs):
            (failed if "reason" in row else rows).append(row)
            box.keep()
    if not rows:
        raise CandidateError(f"all trainings failed; the first: {failed[0]['reason']}")


def _without_recording(box: Box) -> Box:
    """With data that lack the recording `Lengths.held_out`; the same box if there is none."""
    group = box.lengths.held_out
    data = PreparedData.open(prepared_folder(box.root, box.settings))
    if group not in data.split("train").groups:
        return box
    name = f"{box.settings.name}-without-{group}".lower()
    settings = box.with_settings(name=name, dataset__held_out=(group,))
    prepare(settings.dataset, box.root, prepared_folder(box.root, settings))
    return replace(box, settings=settings)


def _best_of_searches(box: Box) -> dict[str, Genotype]:
    rows = [row for name in SEARCHES for row in box.found[name]["best"]]
    return {row["id"]: Genotype.from_dict(row["genotype"]) for row in rows}


def _winner(box: Box) -> Genotype:
    return _best_of_searches(box)[decided(box.found)]


def _teacher(box: Box) -> str:
    folder: str = box.found["teacher"]["trainings"][0]["folder"]
    return folder
