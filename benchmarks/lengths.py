"""Whether trainings of as many steps as CamVid's are better than trainings of as many epochs.

python -m benchmarks.lengths [--images N ...] [--seed S ...] [--networks K] [--rule RULE]
    [--architecture NAME] [-p PROFILE] [-S KEY=VALUE ...] [--json]

Takes subsets of so many training images, drawn by each seed, and on each trains an architecture
fully, and random networks on the proxy task with two seeds, by both rules: the settings' own
epochs (`epochs`), and those of `nas data check`'s profile for so many images (`steps`). By one
rule alone it is a learning curve: how good a network is with so many images. Full trainings are
scored on val; of the proxy it says how well two runs of a network agree, and the mean reward on
val. Whole trainings, and checkpoints of those begun, lie in artifacts/lengths: the same command
goes on.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.command import AsJson, Overrides, Profile, errors_in_words, kept
from benchmarks.reliability import figures
from nas_core.base.errors import SettingsError
from nas_core.base.files import digest_of, write_json
from nas_core.base.paths import artifacts_folder, prepared_folder, searches_folder
from nas_core.base.project import project_dir
from nas_core.base.seeds import derive_seed
from nas_core.base.setting_types import MAX_SEED
from nas_core.config import Settings
from nas_core.data.lengths import lengths
from nas_core.data.prepared import PreparedData
from nas_core.data.preparing import prepare
from nas_core.data.tiling import image_of
from nas_core.data.transforms import resized
from nas_core.loading import check_distinct, load_settings
from nas_core.models.compute import Compute
from nas_core.models.encoder import encoder_weights
from nas_core.search.identity import candidate_seed
from nas_core.search.sampling import sample_architectures
from nas_core.search.searched import searched_genotypes
from nas_core.space.architectures import find_architecture
from nas_core.space.genotype import Genotype
from nas_core.training.full import evaluate, train_fully
from nas_core.training.full_task import FullTask
from nas_core.training.proxy import train_candidate
from nas_core.training.proxy_task import build_proxy_task, divide

Rule = Literal["epochs", "steps"]
RULES: tuple[Rule, ...] = ("epochs", "steps")
PROXY_SEEDS = 2


def subset(data: PreparedData, number: int, seed: int) -> PreparedData:
    """The dataset with so many of its training images, of each with all its tiles."""
    images = _images(data)
    known = list(dict.fromkeys(images))
    if number >= len(known):
        return data
    chosen = np.random.default_rng(seed).choice(len(known), number, replace=False)
    kept_images = {known[index] for index in chosen}
    drawn = np.array([row for row, image in enumerate(images) if image in kept_images])
    rows = data.split("train").rows(drawn)
    content = digest_of(data.content_hash, drawn.tolist(), length=64)
    return replace(data, content_hash=content, splits={**data.splits, "train": rows})


def _images(data: PreparedData) -> list[str]:
    """The image of each row of train, which tiles have in common."""
    return [image_of(name, data.tile) for name in data.split("train").names]


def by_rule(settings: Settings, rule: Rule, data: PreparedData) -> Settings:
    """The settings with the lengths of a rule."""
    if rule == "epochs":
        return settings
    chosen = divide(data, settings.search.proxy, settings.search.meta_val)
    found = lengths(len(data.split("train")), len(chosen.train))
    proxy = settings.search.proxy.model_copy(update=found["proxy"])
    search = settings.search.model_copy(update={"proxy": proxy})
    train = settings.train.model_copy(update=found["train"])
    return settings.model_copy(update={"search": search, "train": train})


def trained(
    settings: Settings, root: Path, data: PreparedData, genotype: Genotype, seed: int
) -> dict[str, float]:
    """val_mean_iou and seconds of a full training; it goes on where it was stopped."""
    task = replace(FullTask.open(settings, root), data=data)
    folder = artifacts_folder(root) / "lengths" / task.identity(genotype, seed)
    outcome = folder / "outcome.json"
    if not outcome.exists():
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint = folder / "checkpoint.pt"
        result = train_fully(task, genotype, seed=seed, checkpoint=checkpoint, on_epoch=_tell)
        assert result.val is not None, "checked by main"
        seconds = sum(row["seconds"] for row in result.history)
        write_json(outcome, {"val_mean_iou": result.val.mean_iou, "seconds": seconds})
        checkpoint.unlink()
    return kept(outcome, "val_mean_iou", "seconds")


def _tell(row: dict[str, float]) -> None:
    print(f"epoch {row['epoch']:.0f}, {row['seconds']:.0f} s", file=sys.stderr)


def proxy_runs(
    settings: Settings, root: Path, data: PreparedData, networks: dict[str, Genotype]
) -> list[dict[str, Any]]:
    """A row a training: id, seed, reward on meta-val, val_reward, seconds."""
    encoder = encoder_weights(settings, root)
    compute = Compute.from_settings(settings.compute)
    proxy = settings.search.proxy
    task = build_proxy_task(
        data,
        encoder,
        proxy,
        compute,
        meta_val=settings.search.meta_val,
        seed=settings.seed,
        encoder_name=settings.network.encoder,
    )
    val = resized(
        data.split("val"),
        proxy.height,
        proxy.width,
        frame=(data.height, data.width),
        ignore_index=data.ignore_index,
    )
    identity = digest_of(
        data.search_hash, settings.search.model_dump(mode="json", include={"proxy", "meta_val"})
    )
    rows = []
    for seed in range(PROXY_SEEDS):
        for name, genotype in networks.items():
            path = artifacts_folder(root) / "lengths" / f"proxy-{identity}" / f"{name}-{seed}.json"
            if not path.exists():
                result = train_candidate(task, genotype, seed=candidate_seed(seed, name))
                scored = evaluate(result.segmenter, val, task.num_classes, task.ignore_index)
                seconds = sum(result.seconds.values())
                rewards = {"reward": result.scores[-1], "val_reward": scored.reward}
                write_json(path, {"id": name, "seed": seed, **rewards, "seconds": seconds})
            rows.append(kept(path, "id", "seed", "reward", "val_reward", "seconds"))
    return rows


def measure(
    settings: Settings,
    root: Path,
    *,
    images: list[int],
    seeds: list[int],
    num_networks: int,
    genotype: Genotype,
    rules: Sequence[Rule] = RULES,
) -> list[dict[str, Any]]:
    """A row for each number of images, seed and rule.

    Raises:
        NasError: the data or weights cannot be used, or a training failed.
    """
    data = prepare(settings.dataset, root, prepared_folder(root, settings))
    networks = sample_architectures(settings, root, data, num_networks) if num_networks else {}
    rows = []
    for number in images:
        for seed in seeds:
            part = subset(data, number, derive_seed(seed, "subset", str(number)))
            for rule in rules:
                own = by_rule(settings, rule, part)
                print(f"{number} images, seed {seed}, equal {rule}", file=sys.stderr)
                row: dict[str, Any] = {"images": len({*_images(part)}), "seed": seed}
                row |= {"rule": rule, "epochs": own.train.epochs}
                row |= trained(own, root, part, genotype, seed)
                if networks:
                    runs = proxy_runs(own, root, part, networks)
                    found = figures(runs, "reward", seed)
                    row["proxy"] = {
                        "seconds": statistics.mean(run["seconds"] for run in runs),
                        "val_reward": statistics.mean(run["val_reward"] for run in runs),
                        "reliability": found["reliability"],
                    }
                rows.append(row)
    return rows


@errors_in_words
def main(
    images: Annotated[list[int] | None, typer.Option(min=3, help="Again for more.")] = None,
    seed: Annotated[
        list[int] | None, typer.Option(min=0, max=MAX_SEED, help="Again for more.")
    ] = None,
    networks: Annotated[int, typer.Option(help="Random networks on the proxy; 0 or 4 up.")] = 8,
    rule: Annotated[Rule | None, typer.Option(help="Both if left out.")] = None,
    architecture: Annotated[
        str, typer.Option(help="What is trained fully: a name, id or file.")
    ] = "arch0",
    profile: Profile = "camvid",
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Compare trainings of equal epochs with trainings of equal steps."""
    root = project_dir()
    settings = load_settings(profile, overrides or [], root=root)
    if settings.train.splits != "train":
        raise SettingsError("train.splits: trainings are compared on val, so train without it")
    if networks < 4 and networks != 0:
        raise SettingsError(f"--networks {networks}: give 4 or more, or 0 for none")
    check_distinct("--images", images or ())
    check_distinct("--seed", seed or ())
    _, genotype = find_architecture(architecture, searched_genotypes(searches_folder(root)))
    rows = measure(
        settings,
        root,
        images=images or [60, 180, 367],
        seeds=seed or [0],
        num_networks=networks,
        genotype=genotype,
        rules=(rule,) if rule else RULES,
    )
    if as_json:
        print(json.dumps(rows))
    else:
        _show(rows)


def _show(rows: list[dict[str, Any]]) -> None:
    table = Table(
        "images", "seed", "equal", "epochs", "val mIoU", "seconds",
        "proxy: val reward", "reliability", "seconds",
    )  # fmt: skip
    for row in rows:
        proxy = row.get("proxy")
        table.add_row(
            *(str(row[key]) for key in ("images", "seed", "rule", "epochs")),
            f"{row['val_mean_iou']:.4f}",
            f"{row['seconds']:.0f}",
            *(
                (f"{proxy['val_reward']:.4f}", f"{proxy['reliability']:.2f}",
                 f"{proxy['seconds']:.1f}")
                if proxy
                else ("", "", "")
            ),
        )  # fmt: skip
    Console(width=None if sys.stdout.isatty() else 100).print(table)


if __name__ == "__main__":
    typer.run(main)
