"""What the page of a search tells, read from the disk. The search may be running."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from os.path import lexists
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
from PIL import Image

from nas_core.analysis.fronts import COSTS, pareto_front
from nas_core.analysis.leaderboard import leaderboard, parse_genotype
from nas_core.base.errors import DataError, RunError
from nas_core.base.files import read_limited, write_bytes
from nas_core.base.paths import artifacts_folder, trainings_folder
from nas_core.data.prepared import PreparedData
from nas_core.loading import validate_settings
from nas_core.search.about import ABOUT_FILE, About, State, is_confirming, search_state
from nas_core.search.candidate_files import Losses, candidate_files, drawing_file
from nas_core.search.journal import Confirmation, Journal, Record
from nas_core.search.latencies import LATENCY_FILE, read_latencies, with_latencies
from nas_core.training.record import FinalScores, Training

NUM_BEST = 10
MAX_DRAWINGS = 200
"""More than these are not put into a page: each takes 10 KB there."""

_MAX_PICTURE = 2**26
_MAX_DRAWING = 2**20
_SHEET_WIDTH = 1400


@dataclass(frozen=True)
class FullTraining:
    """A full training, and its scores on the final split if it was scored."""

    folder: Path
    content: Training
    test: FinalScores | None


@dataclass(frozen=True)
class Trained:
    """A network that was trained fully, once or with several seeds, by one recipe."""

    label: str
    id: str
    trainings: Sequence[FullTraining]

    @property
    def latest(self) -> FullTraining:
        return max(self.trainings, key=lambda one: one.content.finished)

    @property
    def scored(self) -> list[FullTraining]:
        return [one for one in self.trainings if one.test]

    @property
    def scores(self) -> list[float]:
        """The mean IoU of each that was scored."""
        return [one.test.mean_iou for one in self.trainings if one.test]


@dataclass(frozen=True)
class SearchFacts:
    """All that the page of a search tells.

    Attributes:
        state: stopped: not at its end, and no process works on it.
        held_by: the process that works on it.
        num_planned: the candidates that it is to train.
        is_confirming: it has them all, and its best are not confirmed yet.
        about: what the search's about.json tells; None if there is none.
        table: its candidates as `leaderboard` has them.
        data: the prepared dataset, if it is still the one of this search.
        losses: by id, then by stage, a value an epoch.
        drawings: contents of SVG files by id.
        trained: with scores first, the best first.
        notes: what could not be read.
    """

    folder: Path
    state: State
    held_by: str | None
    num_planned: int
    settings: Mapping[str, Any]
    identity: Mapping[str, Any]
    about: About | None
    records: Sequence[Record]
    table: pd.DataFrame
    data: PreparedData | None
    losses: Mapping[str, Mapping[str, Sequence[float]]]
    drawings: Mapping[str, bytes]
    trained: Sequence[Trained]
    confirmations: Sequence[Confirmation] = ()
    is_confirming: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def candidates(self) -> list[Record]:
        return [record for record in self.records if record.candidate is not None]

    @property
    def trainings(self) -> list[Record | Confirmation]:
        """Those on the proxy task."""
        return [*self.candidates, *self.confirmations]

    @property
    def finished(self) -> pd.DataFrame:
        """The candidates with all their scores: those of a shorter training do not compare."""
        return self.table[self.table["status"] == "finished"]

    @property
    def best(self) -> pd.DataFrame:
        """The first `NUM_BEST` with a reward."""
        return self.table[self.table["reward"].notna()].head(NUM_BEST)


def read_search_facts(root: Path, folder: Path) -> SearchFacts:
    """Read what the page of the search in `folder` tells.

    Networks of its fronts and its best that are not drawn yet are drawn, and the drawings kept.

    Args:
        root: the project's folder.

    Raises:
        NasError: the journal or the latencies cannot be read, or a network of it cannot be drawn.
            What else cannot be read is in `notes`.
    """
    notes: list[str] = []
    journal = Journal.read(folder / "journal.jsonl")
    state, held_by, planned = search_state(folder, journal)
    latencies = read_latencies(folder / LATENCY_FILE)
    records = with_latencies(journal.records, latencies)
    table = leaderboard(
        (record for record in records if record.candidate is not None), journal.confirmations
    )
    settings, identity = journal.header.settings, journal.header.identity
    data = _prepared(root, settings, identity)
    facts = SearchFacts(
        folder=folder,
        state=state,
        held_by=held_by,
        num_planned=planned,
        settings=settings,
        identity=identity,
        about=_about(folder, notes),
        records=records,
        table=table,
        data=data,
        confirmations=journal.confirmations,
        is_confirming=is_confirming(folder, journal),
        losses={},
        drawings={},
        trained=_trained(root, settings, data, {*table["id"]}, notes),
        notes=notes,
    )
    best = list(facts.best["id"])
    return _with(
        facts,
        losses=dict(_losses(folder, best, notes)),
        drawings=_drawings(facts, [*best, *_on_fronts(facts.finished)]),
    )


def _with(facts: SearchFacts, **changes: Any) -> SearchFacts:
    return SearchFacts(**{**vars(facts), **changes})


def _on_fronts(finished: pd.DataFrame) -> list[str]:
    return [one for cost in COSTS for one in pareto_front(finished, cost)["id"]]


def _about(folder: Path, notes: list[str]) -> About | None:
    path = folder / ABOUT_FILE
    try:
        return About.read(path) if lexists(path) else None
    except RunError as error:
        notes.append(str(error))
        return None


def _prepared(
    root: Path, settings: Mapping[str, Any], identity: Mapping[str, Any]
) -> PreparedData | None:
    place = artifacts_folder(root) / "prepared" / str(settings.get("name"))
    try:
        data = PreparedData.open(place)
    except DataError:
        return None
    return data if data.search_hash == identity.get("data") else None


def _losses(
    folder: Path, ids: Iterable[str], notes: list[str]
) -> Iterable[tuple[str, dict[str, list[float]]]]:
    for one in ids:
        path = candidate_files(folder, one)["losses"]
        try:
            yield one, Losses.read(path).root
        except RunError:
            notes.append(f"{path} is missing or damaged: no losses of {one}")


def _drawings(facts: SearchFacts, needed: Sequence[str]) -> dict[str, bytes]:
    """Drawings by id: of those that are needed, and of others that are there.

    One that is damaged is made anew if it is needed, as one that is missing.
    """
    others = [one for one in facts.table["id"] if one not in needed]
    found: dict[str, bytes] = {}
    for one in dict.fromkeys([*needed, *others]):
        path = drawing_file(facts.folder, one)
        kept = _read_drawing(path)
        anew = kept is None and one in needed and facts.data is not None
        if kept is None and lexists(path):
            then = "it is drawn anew" if anew else f"no drawing of {one}"
            facts.notes.append(f"{path} is damaged: {then}")
        if anew:
            assert facts.data is not None
            kept = _draw(facts, facts.data, one)
            write_bytes(path, kept)
        if kept is not None:
            found[one] = kept
        if len(found) >= max(MAX_DRAWINGS, len(needed)):
            break
    return found


def _read_drawing(path: Path) -> bytes | None:
    """The content of an SVG file; None if it is missing or damaged."""
    try:
        content = read_limited(path, _MAX_DRAWING)
        root = ElementTree.fromstring(content)
    except (OSError, ValueError, LookupError, ElementTree.ParseError):
        return None
    return content if root.tag == "{http://www.w3.org/2000/svg}svg" else None


def _draw(facts: SearchFacts, data: PreparedData, identifier: str) -> bytes:
    from nas_core.analysis.drawing import draw  # brings torch
    from nas_core.models.cost import form_of

    (text,) = facts.table.loc[facts.table["id"] == identifier, "genotype"]
    where = str(facts.folder / "journal.jsonl")
    given = {"network": facts.settings.get("network", {})}
    network = validate_settings(given, where).network
    return draw(
        parse_genotype(text, where),
        identifier,
        **form_of(network, data.num_classes),
        input_size=(data.height, data.width),
    )


def _trained(
    root: Path,
    settings: Mapping[str, Any],
    data: PreparedData | None,
    ids: set[str],
    notes: list[str],
) -> list[Trained]:
    """The full trainings on the search's data: of its candidates, and of networks with a name."""
    groups: dict[str, list[FullTraining]] = {}
    for path in sorted(trainings_folder(root).glob("*/training.json")):
        try:
            training = Training.read(path)
            scores = path.with_name("test.json")
            test = FinalScores.read(scores) if scores.exists() else None
        except RunError as error:
            notes.append(str(error))
            continue
        known = training.id in ids or training.label != training.id
        same_data = training.data == settings.get("name") and (
            data is None or training.data_hash == data.data_hash
        )
        if known and same_data:
            recipe = training.model_dump_json(include={"id", "splits", "recipe"})
            groups.setdefault(recipe, []).append(FullTraining(path.parent, training, test))
    found = [
        Trained(group[0].content.label, group[0].content.id, group) for group in groups.values()
    ]
    return sorted(found, key=lambda one: -_mean_iou(one))


def _mean_iou(trained: Trained) -> float:
    scores = trained.scores
    return math.fsum(scores) / len(scores) if scores else -1.0


def confusion(training: FullTraining, notes: list[str]) -> pd.DataFrame | None:
    """Counts of pixels, a row a true class; None if the file is missing, or damaged: then it is
    noted."""
    path = training.folder / "test_confusion_matrix.csv"
    try:
        table = pd.read_csv(io.BytesIO(read_limited(path, _MAX_PICTURE)), index_col=0, dtype=str)
        counts = table.astype("int64")
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        counts = pd.DataFrame()
    if counts.shape[0] == counts.shape[1] > 0 and not (counts < 0).any(axis=None):
        return counts
    notes.append(f"{path} is damaged: no confusion matrix of {training.content.label}")
    return None


def contact_sheet(training: FullTraining, notes: list[str]) -> tuple[bytes, int, int] | None:
    """The pictures of a scored training as the content of a WebP file, its width and height.

    None if the file is missing, or damaged: then it is noted.
    """
    path = training.folder / "pictures" / "contact_sheet.png"
    try:
        return _as_webp(path, path.stat().st_mtime_ns)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        notes.append(f"{path} is damaged: no pictures of {training.content.label}")
        return None


@lru_cache(maxsize=16)
def _as_webp(path: Path, changed: int) -> tuple[bytes, int, int]:
    """Kept, because the page of a running search is written again and again."""
    with Image.open(io.BytesIO(read_limited(path, _MAX_PICTURE))) as original:
        picture = original.convert("RGB")
        picture.thumbnail((_SHEET_WIDTH, 16_000))
        content = io.BytesIO()
        picture.save(content, "webp", quality=82)
        return content.getvalue(), *picture.size
