"""The page of a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from nas_core.analysis.fronts import COSTS, pareto_front
from nas_core.analysis.report import charts
from nas_core.analysis.report.page import (
    REPORT_FILE,
    data_uri,
    number,
    packed,
    percent,
    spread,
    write_page,
)
from nas_core.analysis.report.sources import (
    SearchFacts,
    Trained,
    confusion,
    contact_sheet,
    read_search_facts,
)
from nas_core.base.times import duration, moment
from nas_core.config import Settings
from nas_core.space.architectures import NAMES
from nas_core.training.record import Recipe

MAX_FAILURES = 20
MAX_CONFUSIONS = 6
TRAINED_HEADINGS = (
    *("network", "parameters", "GMACs", "val mIoU", "final mIoU", "seeds", "trained on", "epochs"),
)
# What is told of a candidate: its name, its column, whether more is better, how it is written.
CARD_FACTS = (
    ("reward", "reward", True, lambda value: number(value, ".4f")),
    ("mIoU", "mean_iou", True, percent),
    ("weighted IoU", "frequency_weighted_iou", True, percent),
    ("accuracy", "mean_accuracy", True, percent),
    ("parameters", "num_parameters", False, number),
    ("GMACs", "macs", False, lambda value: number(value / 1e9, ".2f")),
    ("latency, ms", "latency_ms", False, lambda value: number(value, ".1f")),
    ("training, s", "seconds", False, lambda value: number(value, ".0f")),
)


def write_search_page(root: Path, folder: Path) -> Path:
    """Write the page of the search in `folder` there; returns its path. It may be running.

    Args:
        root: the project's folder.

    Raises:
        NasError: see `read_search_facts`, or the disk does not take it.
    """
    return write_facts(read_search_facts(root, folder))


def write_facts(facts: SearchFacts) -> Path:
    """As `write_search_page`, of what is read already."""
    return write_page(facts.folder / REPORT_FILE, "search.html.jinja", search_content(facts))


def search_content(facts: SearchFacts) -> dict[str, Any]:
    """What the template names."""
    trained = [_trained(one, facts.notes) for one in facts.trained]
    cards, front, failures = _cards(facts), _front(facts.finished), _failures(facts)
    shaped = _part(facts.settings, "search", "reward")
    return {
        "title": f"{facts.name}: search",
        "name": facts.name,
        "state": facts.state,
        "state_words": state_words(facts),
        "summary": summary(facts),
        "advice": _advice(facts),
        "tiles": _tiles(facts),
        "has_candidates": bool(facts.candidates),
        "reward_note": "; here it counts the cost, too"
        if shaped.get("cost", "none") != "none"
        else "",
        "charts": _charts(facts),
        "networks": {row["id"]: _in_a_line(row) for row in _rows(facts.table)},
        "drawings": {name: packed(content) for name, content in facts.drawings.items()},
        "front": front,
        "cards": cards,
        "trained": trained,
        "trained_headings": TRAINED_HEADINGS,
        "trained_rows": [_trained_row(one) for one in facts.trained],
        "train_hint": "It trains its best once all candidates are scored."
        if facts.state == "running"
        else "nas search trains the best; nas train ID any of them.",
        "final_split": facts.data.final_split if facts.data else "the final split",
        "confirming": _confirming(facts),
        "stopping": _stopping(facts),
        "failures": failures[:MAX_FAILURES],
        "num_more_failures": max(0, len(failures) - MAX_FAILURES),
        "settings": changed_settings(facts.settings),
        "origin": _origin(facts),
        "notes": facts.notes,
        "has_images": any(one["sheet"] for one in trained),
    }


def state_words(facts: SearchFacts) -> str:
    done = len(facts.candidates)
    confirming = ", confirming the best" if facts.is_confirming else ""
    return {
        "running": f"running, {done} of {facts.num_planned}{confirming}",
        "complete": "complete",
        "stopped": f"stopped at {done} of {facts.num_planned}{confirming}",
    }[facts.state]


def summary(facts: SearchFacts) -> str:
    """What was searched, what was found and what that costs, in two sentences."""
    search, done = _part(facts.settings, "search"), facts.candidates
    by = f"the strategy {search.get('strategy', 'unknown')}"
    where = facts.settings.get("name", "its data")
    if not done:
        return (
            f"A search with {by} for compact segmentation networks on {where}. No candidate has "
            "come to its end yet."
        )
    seconds = sum(sum(run.seconds.values()) for run in facts.trainings)
    what = (
        f"With {by}, {len(done)} {'network was' if len(done) == 1 else 'networks were'} tried on "
        f"{where}, in {duration(seconds)} of training."
    )
    if facts.best.empty:
        return f"{what} All of them failed, for the reasons below."
    best = _rows(facts.best)[0]
    latency = "" if best["latency_ms"] is None else f", {best['latency_ms']:.0f} ms an image"
    seeds = f"{_over_seeds(best)}, " if best["seeds"] > 1 else ""
    found = (
        f"The best, {best['id']}, has a reward of {best['reward']:.4f} ({seeds}mIoU "
        f"{percent(best['mean_iou'])} on held-out training images) with "
        f"{best['num_parameters']:,} parameters, {best['macs'] / 1e9:.2f} GMACs{latency}"
    )
    return f"{what} {found}{_known_in_words(facts)}{_trained_in_words(facts)}."


def _known_in_words(facts: SearchFacts) -> str:
    """What the best network with a name has, if the search tried one and found a better one."""
    best, *others = _rows(facts.table[facts.table["reward"].notna()])
    known = next((row for row in others if row["id"] in NAMES), None)
    if known is None or best["id"] in NAMES:
        return ""
    seeds = f" ({_over_seeds(known)})" if known["seeds"] > 1 else ""
    return (
        f"; {NAMES[known['id']]}, which was tried too, has {known['reward']:.4f}{seeds} with "
        f"{known['num_parameters']:,} parameters"
    )


def _trained_in_words(facts: SearchFacts) -> str:
    """How the best of the search's own that was trained fully does beside a network with a name."""
    ids = {*facts.table["id"]}
    scored = [one for one in facts.trained if one.scored]
    own = next((one for one in scored if one.id in ids), None)
    if own is None:
        return ""
    split = facts.data.final_split if facts.data else "final"
    words = f"; trained fully, {own.label} scores {spread(own.scores)} {split} mIoU"
    named = [one for one in scored if one.id not in ids and _recipe(one) == _recipe(own)]
    if named:
        other = named[0]
        gap = 100 * (_mean(own.scores) - _mean(other.scores))
        words += f", {abs(gap):.1f} points {'above' if gap >= 0 else 'below'} {other.label}"
    return words


def changed_settings(settings: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Key, value and default of what differs from the defaults."""
    now = _flat(settings)
    defaults = _flat(Settings().model_dump(mode="json"))
    return [
        (key, str(value), str(defaults[key]) if key in defaults else "")
        for key, value in now.items()
        if key not in defaults or value != defaults[key]
    ]


def _part(settings: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """A section of the settings in a journal; empty if it has none."""
    for key in keys:
        found = settings.get(key)
        settings = found if isinstance(found, Mapping) else {}
    return settings


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    (flat,) = pd.json_normalize(dict(values)).astype(object).to_dict("records")
    return {str(key): value for key, value in flat.items()}


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """With None where a value is missing."""
    plain = table.astype(object)
    return [
        {str(key): value for key, value in row.items()}
        for row in plain.where(plain.notna(), None).to_dict("records")
    ]


def _tiles(facts: SearchFacts) -> list[tuple[str, ...]]:
    done, rows = facts.candidates, _rows(facts.best)
    tiles: list[tuple[str, ...]] = []
    if rows:
        best = rows[0]
        tiles += [
            ("best reward", f"{best['reward']:.4f}", best["id"]),
            ("its mIoU", percent(best["mean_iou"]), "held-out training images"),
            ("parameters", number(best["num_parameters"])),
            ("GMACs", number(best["macs"] / 1e9, ".2f")),
        ]
        if best["latency_ms"] is not None:
            tiles.append(("latency", f"{best['latency_ms']:.0f} ms", "an image, by search.latency"))
    for one in facts.trained[:1]:
        if one.scored:
            split = facts.data.final_split if facts.data else "final"
            mean = percent(_mean(one.scores))
            tiles.append((f"{split} mIoU", mean, f"{one.label}, trained fully"))
    failed = sum(record.status == "failed" for record in done)
    stopped = sum(record.status == "stopped early" for record in done)
    counts = f"{stopped} stopped early, {failed} failed"
    tiles.append(("candidates", f"{len(done)} of {facts.num_planned}", counts))
    return tiles


def _advice(facts: SearchFacts) -> str:
    if facts.state == "running":
        return "This page is written anew after each round: reload it to see more."
    if facts.state == "stopped":
        return "No process works on it. The command that began it goes on from here."
    return ""


def _charts(facts: SearchFacts) -> dict[str, list[dict[str, Any]]]:
    """Charts by name; one without anything to show is empty."""
    names = _distinct_labels(facts.trained)
    scored = {name: one for name, one in names.items() if one.scored}
    by_network = {name: _classes(one) for name, one in scored.items()}
    classes = list(dict.fromkeys(key for values in by_network.values() for key in values))
    matrices = {
        name: matrix
        for name, one in list(scored.items())[:MAX_CONFUSIONS]
        if (matrix := confusion(one.scored[-1], facts.notes)) is not None
    }
    return {
        **{f"losses-{name}": charts.losses(stages) for name, stages in facts.losses.items()},
        "progress": charts.progress(facts.candidates) if facts.candidates else [],
        "pareto": charts.pareto(facts.finished),
        "class_iou": charts.class_iou(classes, by_network) if classes else [],
        "confusion": charts.confusion(matrices),
        "histories": charts.histories(
            {name: one.latest.content.history for name, one in names.items()}
        ),
    }


def _distinct_labels(trained: Sequence[Trained]) -> dict[str, Trained]:
    """By label; where recipes differ, with the epochs and a number if need be."""
    found: dict[str, Trained] = {}
    for one in trained:
        name = one.label
        if name in found:
            name = f"{one.label}, {len(one.latest.content.history)} epochs"
        while name in found:
            name += "′"
        found[name] = one
    return found


def _classes(trained: Trained) -> dict[str, dict[str, float]]:
    """Mean, min and max of each class's IoU over the seeds."""
    by_class: dict[str, list[float]] = {}
    for one in trained.scored:
        assert one.test
        for name, value in one.test.class_iou.items():
            by_class.setdefault(name, []).append(value)
    return {
        name: {"mean": _mean(values), "min": min(values), "max": max(values)}
        for name, values in by_class.items()
    }


def _cards(facts: SearchFacts) -> list[dict[str, Any]]:
    rows = _rows(facts.best)
    best = {}
    for _, column, more_is_better, _ in CARD_FACTS:
        known = [row[column] for row in rows if row[column] is not None]
        if len({*known}) > 1:
            best[column] = max(known) if more_is_better else min(known)
    return [
        {
            **{key: row[key] for key in ("rank", "id", "candidate", "status")},
            "name": NAMES.get(row["id"], ""),
            "confirmed": _over_seeds(row),
            "facts": [
                (name, written(row[column]), row[column] is not None and row[column] == top)
                for name, column, _, written in CARD_FACTS
                for top in (best.get(column),)
            ],
            "chart": f"losses-{row['id']}" if row["id"] in facts.losses else "",
        }
        for row in rows
    ]


def _over_seeds(row: Mapping[str, Any]) -> str:
    """That a reward is a mean, and its standard error; empty if it is none."""
    return f"mean of {row['seeds']} seeds ± {row['reward_error']:.4f}" if row["seeds"] > 1 else ""


def _front(finished: pd.DataFrame) -> list[dict[str, Any]]:
    """The networks on any of the fronts, the best first."""
    ids = {one for cost in COSTS for one in pareto_front(finished, cost)["id"]}
    return _rows(finished[finished["id"].isin(ids)])


def _in_a_line(row: Mapping[str, Any]) -> str:
    parts = [*filter(None, [NAMES.get(row["id"])]), f"candidate {row['candidate']}"]
    if row["status"] != "finished":
        parts.append(row["status"])
    if row["reward"] is not None:
        parts.append(f"reward {row['reward']:.4f}")
        parts += filter(None, [_over_seeds(row)])
        parts.append(f"mIoU {percent(row['mean_iou'])}")
    parts += [f"{row['num_parameters']:,} parameters", f"{row['macs'] / 1e9:.2f} GMACs"]
    if row["latency_ms"] is not None:
        parts.append(f"{row['latency_ms']:.0f} ms")
    return " · ".join(parts)


def _trained(one: Trained, notes: list[str]) -> dict[str, Any]:
    latest = one.scored[-1] if one.scored else one.latest
    found = contact_sheet(latest, notes)
    sheet = None
    if found:
        content, width, height = found
        sheet = {"uri": data_uri(content, "image/webp"), "width": width, "height": height}
    return {"label": one.label, "sheet": sheet}


def _trained_row(one: Trained) -> tuple[str, ...]:
    content = one.latest.content
    val = [
        training.content.val["mean_iou"]
        for training in one.trainings
        if "mean_iou" in training.content.val
    ]
    return (
        one.label,
        number(content.num_parameters),
        number(content.macs / 1e9, ".2f"),
        spread(val),
        spread(one.scores) if one.scored else "not scored yet",
        str(len(one.trainings)),
        content.splits,
        str(len(content.history)),
    )


def _recipe(trained: Trained) -> tuple[str, Recipe | None]:
    content = trained.latest.content
    return content.splits, content.recipe


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _stopping(facts: SearchFacts) -> str:
    enabled = _part(facts.settings, "search", "early_stopping").get("enabled", True)
    by_status: dict[str, list[float]] = {"finished": [], "stopped early": [], "failed": []}
    for record in facts.candidates:
        by_status[record.status].append(sum(record.seconds.values()))
    ended, full = by_status["stopped early"], by_status["finished"]
    num = len(facts.candidates)
    if not enabled:
        words = "Early stopping is off."
    elif not ended:
        words = "Early stopping is on, and has stopped no candidate."
    else:
        words = f"{len(ended)} of {num} candidates stopped early, as they scored below the others"
        words += f", after {_mean(ended):.0f} s on average"
        words += f" instead of {_mean(full):.0f} s." if full else "."
    failed = len(by_status["failed"])
    return f"{words} {failed or 'None'} of the candidates failed."


def _confirming(facts: SearchFacts) -> str:
    """What became of the race between the best; empty if there was none."""
    confirmed = int((facts.table["seeds"] > 1).sum())
    if not facts.confirmations:
        return ""
    failed = sum(one.status == "failed" for one in facts.confirmations)
    return (
        f"{confirmed} of the best were trained again with other seeds, in "
        f"{len(facts.confirmations)} trainings, {failed or 'none'} of which failed. They stand "
        "before all others, by the mean of their rewards; what was clearly worse got fewer seeds. "
        "± is a mean's standard error."
    )


def _failures(facts: SearchFacts) -> list[tuple[str, str, str]]:
    numbers = {record.id: record.candidate for record in facts.candidates}
    return [
        (str(record.candidate), record.id, record.reason)
        for record in facts.candidates
        if record.status == "failed"
    ] + [
        (f"{numbers.get(one.confirms, '')}, seed {one.run}", one.confirms, one.reason)
        for one in facts.confirmations
        if one.status == "failed"
    ]


def _origin(facts: SearchFacts) -> list[tuple[str, str]]:
    """Data, commit, versions and time, as name and value."""
    identity, origin = facts.identity, facts.about.origin if facts.about else {}
    dataset = _part(facts.settings, "dataset")
    rows = [("data", f"{dataset.get('kind', 'unknown')}, {dataset.get('path', '')}")]
    if data := facts.data:
        sizes = ", ".join(f"{name} {len(split)}" for name, split in data.splits.items())
        rows += [
            ("images", f"{sizes}; {data.extent} pixels"),
            ("classes", ", ".join(data.classes)),
        ]
    else:
        rows.append(("images", "the prepared data are gone, or of another search by now"))
    rows += [
        ("digest of the data", str(origin.get("data_hash") or identity.get("data", "unknown"))),
        ("seed", str(identity.get("seed", "unknown"))),
        ("commit", origin.get("commit", "not recorded")),
        ("device", str(origin.get("device") or identity.get("device", "unknown"))),
    ]
    versions = {
        key.removeprefix("version."): value
        for key, value in origin.items()
        if key.startswith("version.")
    } or {"torch": identity.get("torch", "unknown")}
    rows.append(("versions", ", ".join(f"{name} {value}" for name, value in versions.items())))
    if facts.about:
        rows.append(("begun", moment(facts.about.began)))
    parts: dict[str, float] = {}
    for run in facts.trainings:
        for part, seconds in run.seconds.items():
            parts[part] = parts.get(part, 0.0) + seconds
    if parts:
        told = ", ".join(f"{part.replace('_', ' ')} {duration(s)}" for part, s in parts.items())
        rows.append(("time in training", f"{duration(sum(parts.values()))}: {told}"))
    repeats = len(facts.records) - len(facts.candidates)
    rows.append(("proposals", f"{len(facts.records)}, {repeats} of them answered from the journal"))
    return rows
