"""What the stages of a flow share, checked before any of them works for long."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from os.path import lexists
from pathlib import Path
from typing import Any

from prefect import get_run_logger
from prefect.runtime import flow_run
from torch import Tensor

from flows.servers.processes import mlflow_pages
from nas_core.analysis.drawing import draw
from nas_core.base.errors import RunError, SettingsError
from nas_core.base.files import check_writable
from nas_core.base.logs import Logger
from nas_core.base.paths import (
    STAGES,
    prepared_folder,
    results_folder,
    searches_folder,
    trainings_folder,
)
from nas_core.base.setting_types import Section
from nas_core.config import Settings
from nas_core.data.prepared import PreparedData
from nas_core.loading import load_settings
from nas_core.models.compute import Compute
from nas_core.models.cost import form_of
from nas_core.models.encoder import encoder_weights
from nas_core.search.loop import Search
from nas_core.search.searched import searched_genotypes
from nas_core.space.architectures import find_architecture
from nas_core.space.genotype import Genotype
from nas_core.training.distillation import load_teacher
from nas_core.training.side_by_side import training_workers
from nas_core.workers.local import Workers
from nas_core.workers.room import candidate_bytes
from tasks.search_log import SearchLog
from tasks.search_report import LinkedReport
from tasks.tracking.provenance import provenance_tags
from tasks.tracking.store import tracking_uri
from tasks.tracking.tracker import DataEntry, Tracker


def settings_of_run(profile: str, root: Path, **given: Any) -> Settings:
    """The settings of a profile with the parameters of a flow laid over.

    Args:
        given: sections, of which the fields that are set count, and plain values; None: not given.

    Raises:
        SettingsError: see `load_settings`.
    """
    sections = {
        key: value.model_dump(mode="json", exclude_unset=True)
        if isinstance(value, Section)
        else value
        for key, value in given.items()
        if value is not None
    }
    return load_settings(profile, sections=sections, root=root)


@dataclass(frozen=True)
class Context:
    """Settings, and what they refer to."""

    settings: Settings
    root: Path
    compute: Compute
    encoder_state: dict[str, Tensor] | None
    architectures: dict[str, Genotype]
    """The architectures of train.also, by name or id."""
    trains: bool

    @classmethod
    def check(cls, settings: Settings, root: Path, *, trains: bool = True) -> Context:
        """Look up all that the settings refer to, and see that there is a place for the results.

        Args:
            trains: False where no network will be trained. Then encoder weights, the teacher and
                architectures are not looked up: a machine that has what DVC keeps may lack them.

        Raises:
            NasError: a device, a file of weights, the teacher, an architecture or a server is not
                there, or something lies where results go.
        """
        compute = Compute.from_settings(settings.compute)
        if trains:
            searched = searched_genotypes(searches_folder(root))
            named = dict(find_architecture(name, searched) for name in settings.train.also)
            load_teacher(settings.train, root)  # its classes are compared with those of `data`
            encoder_state = encoder_weights(settings, root)  # last, as it may download
            context = cls(settings, root, compute, encoder_state, named, trains)
        else:
            context = cls(settings, root, compute, None, {}, trains)
        _check_results(settings, root)
        if trains:
            check_writable(trainings_folder(root), "make it writable")
        Tracker.check(tracking_uri(settings.tracking.uri, root), root)
        return context

    @cached_property
    def data(self) -> PreparedData:
        """The prepared dataset.

        Raises:
            DataError: it is not prepared.
            SettingsError: networks would be scored on what they were trained on, or the teacher
                labels other classes.
        """
        data = PreparedData.open(prepared_folder(self.root, self.settings))
        if data.final_split in self.settings.train.splits.split("+"):
            raise SettingsError(
                f"train.splits = {self.settings.train.splits}: this dataset has no test split, so "
                f"{data.final_split} scores the networks; set train.splits to train"
            )
        if self.trains:
            load_teacher(self.settings.train, self.root, data.classes)
        return data

    @cached_property
    def tracker(self) -> Tracker:
        settings = self.settings
        tags = provenance_tags(
            self.root,
            profile=settings.name,
            data_hash=self.data.data_hash,
            seed=settings.seed,
            device=self.compute.describe(),
            source=str(flow_run.flow_name),
        )
        uri = tracking_uri(settings.tracking.uri, self.root)
        data = DataEntry(settings.name, self.data.data_hash, settings.dataset.path)
        return Tracker(uri, settings.name, tags, self.root, data)

    def training_workers(self, num_trainings: int, *, proxies: bool = False) -> Workers:
        """What carries out full trainings, as `runner` says; it is said in the log.

        Args:
            num_trainings: that there are, done or not.
            proxies: whether the same workers train on the proxy task too.
        """
        num_bytes = 0
        if proxies:
            num_bytes = candidate_bytes(self.settings, len(self.data.split("train")))
        workers = training_workers(self.settings, self.compute, num_trainings, num_bytes)
        get_run_logger().info(workers.about)
        return workers

    def open_search(self) -> Search:
        return Search.open(self.settings, self.root)

    @cached_property
    def report(self) -> LinkedReport:
        """What writes the page of a search, for all stages of a flow run."""
        pages = mlflow_pages(self.root, self.tracker.uri)
        return LinkedReport(self.tracker, get_run_logger(), pages)

    def track_search(self, search: Search, logger: Logger) -> SearchLog:
        return SearchLog(self.tracker, search, logger, self.draw)

    def draw(self, genotype: Genotype) -> bytes:
        """An architecture as the content of an SVG file."""
        return draw(
            genotype,
            genotype.id,
            **form_of(self.settings.network, self.data.num_classes),
            input_size=(self.data.height, self.data.width),
        )


def _check_results(settings: Settings, root: Path) -> None:
    """Raise a RunError where a folder that is written to at the end is a file, or read-only."""
    places = [results_folder(root, settings, stage) for stage in STAGES]
    for place in (places[0].parent, *places):
        if lexists(place) and not place.is_dir():
            raise RunError(f"{place} is no folder: move it away")
        check_writable(place, "make it writable")
