"""What the command line shows at the end."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.servers.processes import mlflow_pages
from nas_core.base.paths import artifacts_folder, results_folder, searches_folder
from nas_core.config import DEFAULT_ENCODER, Settings
from nas_core.space.architectures import NAMES
from nas_core.training.record import EvaluateMetrics, Scores, TrainedNetwork, TrainMetrics
from tasks.tracking.views import search_view

if TYPE_CHECKING:  # pandas takes a while to import
    import pandas as pd

    from flows.train import TrainingSummary
    from nas_core.analysis.comparison import ComparisonReport
    from nas_core.analysis.rank_agreement import FidelityReport
    from nas_core.analysis.uncertainty import Spread
    from nas_core.analysis.verification import VerificationReport
    from nas_core.deploy.bench import Latency
    from nas_core.deploy.int8 import Checked
    from nas_core.deploy.predict import PredictionScores

SCORES = ("mean_iou", "frequency_weighted_iou", "mean_accuracy")


def candidates_table(name: str, candidates: pd.DataFrame, top: int) -> Table:
    """The first rows of a leaderboard, by rank, in 80 columns.

    A mean has its standard error and number of seeds. One with a name has it in place of its id.
    """
    shown = f": the best {top} of {len(candidates)}" if len(candidates) > top else ""
    table = Table(title=f"{name}{shown}", title_justify="left", pad_edge=False)
    for heading in ("reward", "mIoU", "params", "GMACs", "s"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("id", no_wrap=True)
    table.add_column("cand.", justify="right", no_wrap=True)
    table.add_column("ended")
    for row in candidates.head(top).astype(object).to_dict("records"):
        scores = [row["reward"], row["mean_iou"]]
        failed = row["status"] == "failed"
        ended = {"finished": "", "stopped early": "early"}.get(row["status"], row["status"])
        # Tables of older versions have no seeds.
        error = ""
        if row.get("seeds", 0) > 1:
            ended = f"{row['seeds']} seeds"
            error = f"±{row['reward_error']:.4f}".replace("±0.", "±.")
        if row.get("failed_seeds", 0):
            ended = f"{ended}, {row['failed_seeds']} failed".removeprefix(", ")
        table.add_row(
            *(
                "" if failed else f"{score:.4f}{more}"
                for score, more in zip(scores, (error, ""), strict=True)
            ),
            f"{row['num_parameters'] / 1e3:.0f}K",
            f"{row['macs'] / 1e9:.2f}",
            f"{row['seconds']:.0f}",
            NAMES.get(row["id"], row["id"]),
            str(row["candidate"]),
            ended,
        )
    return table


def print_results(console: Console, root: Path, settings: Settings) -> None:
    """The best candidates of the latest search, the trained ones, and where to look further."""
    from nas_core.analysis.leaderboard import SearchMetrics, read_leaderboard

    place = results_folder(root, settings, "search")
    candidates = read_leaderboard(place / "candidates.parquet")
    search = SearchMetrics.read(place / "metrics.json").search
    console.print(candidates_table(search, candidates, top=10))
    trained = results_folder(root, settings, "train") / "metrics.json"
    tested = results_folder(root, settings, "evaluate") / "metrics.json"
    if trained.exists():
        console.print(
            _trainings_table(
                TrainMetrics.read(trained).root,
                EvaluateMetrics.read(tested).root if tested.exists() else {},
            )
        )
    artifacts = artifacts_folder(root)
    encoder = settings.network.encoder
    on_encoder = f" --encoder {quote(encoder)}" if encoder != DEFAULT_ENCODER else ""
    for what, where in (
        ("journal and candidates", artifacts / "searches" / search),
        ("tables and final models", place.parent),
        ("all candidates", "nas leaderboard"),
        ("one of them", f"nas describe ID{on_encoder}"),
        ("compare in MLflow", _mlflow(root, settings, search)),
        ("all of it on one page", _report(artifacts / "searches" / search)),
    ):
        console.print(f"{what:<24} {where}", soft_wrap=True, highlight=False)


def print_training(console: Console, training: TrainingSummary) -> None:
    """Scores of one training and where its weights are."""
    table = Table("score", "val", "test")
    for name in SCORES:
        values = training.val.get(name), getattr(training.test, name, None)
        table.add_row(name, *("" if value is None else f"{value:.4f}" for value in values))
    console.print(table)
    console.print(f"weights: {training.weights}", soft_wrap=True, highlight=False)


def print_comparison(
    console: Console, root: Path, settings: Settings, comparison: ComparisonReport
) -> None:
    """Each strategy over its seeds within the equal training time, and where the files lie."""
    minutes = comparison.budget_seconds / 60
    table = Table(
        title=f"{settings.name}: rewards within {minutes:.1f} min of proxy training a search",
        title_justify="left",
    )
    table.add_column("strategy", no_wrap=True)
    for heading in ("seeds", "cand.", r"best \[min..max]", "mean", "last 1/4"):
        table.add_column(heading, justify="right", no_wrap=True)
    for strategy, over_seeds in comparison.strategies.items():
        best, mean, last = (
            over_seeds.equal_time[figure]
            for figure in ("best_reward", "mean_reward", "last_quarter_reward")
        )
        numbers = [
            search.equal_time.num_candidates
            for search in comparison.searches
            if search.strategy == strategy
        ]
        spread = f" [{best.min:.3f}..{best.max:.3f}]" if len(numbers) > 1 and best else ""
        table.add_row(
            strategy,
            ", ".join(str(seed) for seed in over_seeds.seeds),
            "..".join(str(number) for number in sorted({min(numbers), max(numbers)})),
            _score(best) + spread,
            _score(mean),
            _score(last),
        )
    console.print(table)
    place = results_folder(root, settings, "compare")
    for what, where in (
        ("chart", place / "compare.png"),
        ("all figures, also at equal numbers", place / "compare.json"),
        ("candidate by candidate", place / "curves.parquet"),
        ("all of it on one page", place / "report.html"),
    ):
        console.print(f"{what:<36} {where}", soft_wrap=True, highlight=False)


def _score(values: Spread | None) -> str:
    return "none" if values is None else f"{values.mean:.3f}"


def print_fidelity(
    console: Console, root: Path, settings: Settings, report: FidelityReport
) -> None:
    """How each proxy and the sizes rank, and where the figures are."""
    from nas_core.analysis.ranking_table import WORDS, held_out_rows, ranking_rows

    console.print(
        _cells(
            f"ranking of {report.num_architectures} architectures, against val mIoU of full "
            "training",
            [_narrow(row) for row in ranking_rows(report)],
            WORDS,
        )
    )
    for reason in sorted({row.reason for row in report.proxies if row.reason}):
        console.print(reason)
    if report.held_out is not None:
        title = f"against mIoU on {', '.join(report.held_out.groups)}"
        console.print(_cells(title, [_narrow(row) for row in held_out_rows(report)], WORDS))
    place = results_folder(root, settings, "fidelity")
    console.print("Kendall's tau with 95 % intervals; Spearman's rho is on the page")
    console.print(f"as configured: {report.proxy}")
    console.print(f"figures and picture: {place}", soft_wrap=True, highlight=False)
    console.print(f"on one page: {place / 'report.html'}", soft_wrap=True, highlight=False)


def _narrow(row: Mapping[str, str]) -> dict[str, str]:
    """What fits a terminal."""
    left_out = {"rho", "rho, upper half", "reliability, upper half"}
    return {heading: cell for heading, cell in row.items() if heading not in left_out}


def print_verification(
    console: Console, root: Path, settings: Settings, report: VerificationReport
) -> None:
    """Claimed and measured, the IoU of each class, and where the files are."""
    from nas_core.analysis.verification import WORDS, claim_rows, class_rows, difference_rows

    height, width = report.size
    rows = claim_rows(report)
    seeds = " or ".join(sorted({row["seeds"] for row in rows}))
    title = (
        f"{report.name}: {rows[0]['metric']} at {width}x{height}, per cent; trained on "
        f"{report.splits}, {rows[0]['epochs']} epochs, seeds: {seeds}"
    )
    # A terminal is narrow: the rest stands in the title and with the classes.
    shown = ("model", "claimed", "measured", "95 % by seeds", "95 % by images", "looks", "claim")
    cells = [{heading: row[heading] for heading in shown} for row in rows]
    for shown_row, one in zip(cells, report.architectures, strict=True):
        shown_row["measured"] = f"{100 * one.measured.mean:.2f}"
    console.print(_cells(title, cells, WORDS))
    if report.differences:
        console.print(_cells("differences, points of mIoU", difference_rows(report), WORDS))
    title = "IoU of each class, per cent (95 % by images)"
    classes = Table("class", title=title, title_justify="left")
    for one in report.architectures:
        classes.add_column(one.name, justify="right")
    for values in class_rows(report):
        classes.add_row(*map(Text, values))
    classes.add_section()
    for heading in ("parameters", "GMACs"):
        classes.add_row(heading, *(row[heading] for row in rows))
    console.print(classes)
    place = results_folder(root, settings, "verify")
    console.print(f"claims: {report.claims_source}")
    console.print(f"figures: {place}", soft_wrap=True, highlight=False)
    console.print(f"on one page: {place / 'report.html'}", soft_wrap=True, highlight=False)


def _cells(title: str, rows: Sequence[Mapping[str, str]], words: Sequence[str]) -> Table:
    """Rows by heading; columns that are not in `words` hold numbers."""
    table = Table(title=title, title_justify="left", collapse_padding=True, pad_edge=False)
    for heading in rows[0]:
        table.add_column(
            heading,
            justify="left" if heading in words else "right",
            min_width=_longest_word(row[heading] for row in rows),
            overflow="fold",
        )
    for row in rows:
        # Rich would take a spread in brackets for markup.
        table.add_row(*map(Text, row.values()))
    return table


def _longest_word(cells: Iterable[str]) -> int:
    """That is not broken: of numbers nothing is left out, but a proxy has a long name."""
    return max(min(len(word), 12) for cell in cells for word in cell.split())


def print_class_metrics(console: Console, metrics: PredictionScores) -> None:
    """IoU of each class, and the means."""
    table = Table(title=f"{metrics.num_images} images with masks", title_justify="left")
    table.add_column("class")
    table.add_column("IoU", justify="right")
    for name, value in metrics.class_iou.items():
        table.add_row(name, f"{value:.4f}")
    table.add_section()
    for name in SCORES:
        table.add_row(name, f"{getattr(metrics, name):.4f}")
    console.print(table)


def print_latencies(console: Console, rows: Sequence[Latency]) -> None:
    """Latency for one image by size and backend."""
    table = Table(
        title=f"latency, batch 1, CPU threads: {rows[0].threads}; over {rows[0].runs} runs",
        title_justify="left",
    )
    table.add_column("size")
    table.add_column("backend")
    for heading in ("median ms", "10..90 %", "speed-up", "peak MB"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            f"{row.width}x{row.height}",
            row.backend,
            f"{row.median_ms:.1f}",
            f"{row.p10_ms:.1f}..{row.p90_ms:.1f}",
            f"{row.speedup:.2f}",
            f"{row.peak_mb:.0f}",
        )
    console.print(table)


def print_int8(
    console: Console, path: Path, num_calibration: int, found: Checked, *, is_own: bool
) -> None:
    """What int8 costs and gains.

    Args:
        is_own: whether it was checked on the images that it was calibrated with.
    """
    where = "images that it was calibrated with" if is_own else "images"
    lines = [
        f"written: {path}, calibrated with {num_calibration} images",
        f"{found.num_images} {where}: {found.labels:.3%} of the labels differ from fp32",
    ]
    if found.mean_iou is None:
        lines.append("mIoU: not known without true classes; give IMAGES and --masks")
    else:
        before, after = found.mean_iou
        lines.append(f"mIoU: {after:.4f}, before {before:.4f}: {found.loss:.2f} points lost")
    (plain, small), (slow, fast) = found.num_bytes, found.milliseconds
    lines += [
        f"size: {small / 1e6:.2f} MB, before {plain / 1e6:.2f}",
        f"latency, one thread, CPU time: {fast:.1f} ms, ONNX Runtime in fp32 {slow:.1f}: "
        f"{slow / fast:.2f} times as fast",
    ]
    console.print("\n".join(lines), soft_wrap=True, markup=False, highlight=False)


def _trainings_table(trained: Mapping[str, TrainedNetwork], tested: Mapping[str, Scores]) -> Table:
    table = Table(title="full training", title_justify="left")
    table.add_column("architecture")
    for heading in ("params", "epochs", "val mIoU", "test mIoU"):
        table.add_column(heading, justify="right")
    for label, training in trained.items():
        val = training.val.get("mean_iou")
        test = tested[label].mean_iou if label in tested else None
        table.add_row(
            label,
            f"{training.num_parameters / 1e3:.0f}K",
            str(training.epochs),
            *("" if score is None else f"{score:.4f}" for score in (val, test)),
        )
    return table


def _mlflow(root: Path, settings: Settings, search: str) -> str:
    """Where MLflow's pages show the candidates of a search by reward."""
    uri = settings.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI", "")
    pages = mlflow_pages(root, uri)
    if pages is None:
        return "nas up, then the address that it prints"
    return pages + (search_view(searches_folder(root) / search) or "")


def _report(search: Path) -> str:
    path = search / "report.html"
    return str(path) if path.exists() else "nas report writes it"
