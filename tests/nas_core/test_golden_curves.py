"""Curves of both trainings and of a strategy against stored ones: numbers that move are seen.

To write them anew, with the versions that made them: python -m tests.nas_core.test_golden_curves
"""

import json
import platform
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.strategies import MICRO, KnownSpace
from nas_core.base.files import write_json
from nas_core.config import (
    DatasetSettings,
    MetaValSettings,
    NetworkSettings,
    ProxySettings,
    SearchSettings,
    SyntheticSettings,
    TrainSettings,
)
from nas_core.data.prepared import PreparedData
from nas_core.data.preparing import prepare
from nas_core.models.compute import Compute
from nas_core.search.strategy import Result, make_strategy
from nas_core.space.architectures import ARCHITECTURES
from nas_core.training.full import train_fully
from nas_core.training.full_task import FullTask
from nas_core.training.proxy import train_candidate
from nas_core.training.proxy_task import build_proxy_task

REFERENCE = Path(__file__).parents[1] / "reference" / "curves.json"
SIZE = {"height": 32, "width": 48}
# Of one step each, in each stage of the proxy and in the full training.
EPOCHS = 20
NUM_ROUNDS = 12
COMPUTE = Compute(torch.device("cpu"), bf16=False)

Curves = dict[str, list[float]]


def scenes(folder: Path) -> PreparedData:
    sizes = SyntheticSettings(num_train=5, num_val=2, num_test=1, **SIZE)
    dataset = DatasetSettings(kind="synthetic", path="raw", synthetic=sizes)
    return prepare(dataset, folder, folder / "prepared")


def proxy(folder: Path) -> Curves:
    settings = ProxySettings(
        **SIZE,
        batch_size=4,
        epochs_a=EPOCHS,
        epochs_b=EPOCHS,
        learning_rate_a=3e-4,
        learning_rate_b=1e-4,
        learning_rate_encoder=3e-5,
        averaging_b=0.5,
        agg_size=16,
    )
    task = build_proxy_task(
        scenes(folder), None, settings, COMPUTE, meta_val=MetaValSettings(fraction=0.01), seed=0
    )
    result = train_candidate(task, ARCHITECTURES["arch0"], seed=1)
    return {"loss_a": result.losses["a"], "loss_b": result.losses["b"]}


def full(folder: Path) -> Curves:
    settings = TrainSettings(
        epochs=EPOCHS,
        batch_size=4,
        crop_height=SIZE["height"],
        crop_width=SIZE["width"],
        learning_rate=3e-4,
        learning_rate_encoder=1e-4,
        warmup_steps=4,
        averaging=0.5,
        validate_every=EPOCHS,
    )
    network = NetworkSettings(agg_size=16, sep_repeats=1)
    task = FullTask(scenes(folder), None, network, settings, COMPUTE)
    arch1 = ARCHITECTURES["arch1"]
    result = train_fully(task, arch1, seed=1, checkpoint=folder / "checkpoint.pt")
    return {"loss": [row["loss"] for row in result.history]}


def ppo(folder: Path) -> Curves:
    """On a table of 4,096 networks, of which a pair of operations makes each better or worse."""
    accuracy = {
        str(choices): float(sum(choices) - 2 * (choices[0] == choices[5]))
        for choices in product(range(4), repeat=len(MICRO))
    }
    table = KnownSpace(MICRO, lambda choices: str(tuple(choices)), accuracy)
    strategy = make_strategy(SearchSettings(strategy="ppo"), 0, table.space)
    curves: Curves = {"accuracy": []}
    for _ in range(NUM_ROUNDS):
        proposals = strategy.ask(SearchSettings().batch_size, table.refusal)
        rewards = [accuracy[proposal.genotype.id] for proposal in proposals]
        curves["accuracy"].append(float(np.mean(rewards)))
        found = strategy.tell(list(map(Result, proposals, rewards)))
        for name, value in found.items():
            curves.setdefault(name, []).append(value)
    return curves


CURVES: dict[str, Callable[[Path], Curves]] = {"proxy": proxy, "full": full, "ppo": ppo}
# Relative. Before the first step another instruction set makes a difference of some 1e-7. Adam's
# first steps have one size whatever the gradient, that of rounding errors too: with oneDNN's SSE4.1
# in place of AVX2, 20 of them make up to 3e-4 of it, 40 of them 1e-3, and 12 rounds of PPO 3e-6.
FIRST, LATER, PPO = 1e-5, 5e-3, 1e-4
# Elsewhere torch rounds otherwise when it scales images, by up to three grey levels.
SCALES_ALIKE = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


@pytest.mark.parametrize("name", CURVES)
def test_curves_are_those_that_are_stored(name: str, tmp_path: Path) -> None:
    if name != "ppo" and not SCALES_ALIKE:
        pytest.skip("the stored curves are of images that were scaled with AVX2")
    stored = json.loads(REFERENCE.read_text())
    found, expected = drawn(name, tmp_path), stored["curves"][name]
    assert found.keys() == expected.keys()
    advice = (
        f"stored with {stored['versions']}, here are {versions()}. If these numbers were meant to "
        "change, write them anew with `python -m tests.nas_core.test_golden_curves` and say why in "
        "CHANGELOG.md."
    )
    for curve, values in expected.items():
        check = partial(np.testing.assert_allclose, err_msg=f"{name}, {curve}: {advice}")
        check(found[curve], values, rtol=PPO if name == "ppo" else LATER, atol=1e-6)
        if curve in ("loss_a", "loss"):
            check(found[curve][0], values[0], rtol=FIRST)


def drawn(name: str, folder: Path) -> Curves:
    """In one thread, as the stored ones: the order of a sum depends on their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return CURVES[name](folder)
    finally:
        torch.set_num_threads(threads)


def versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("torch", "numpy", "pillow")}
    return {"python": platform.python_version(), **packages, "machine": platform.machine()}


def write() -> None:
    with tempfile.TemporaryDirectory() as folder:
        curves = {name: drawn(name, Path(folder) / name) for name in CURVES}
    write_json(REFERENCE, {"versions": versions(), "curves": curves})


if __name__ == "__main__":
    write()
