"""The rounds of a search, and the file of their diagnostics."""

from pathlib import Path

import pytest
import torch

from nas_core.compute import Compute
from nas_core.config import ConstraintSettings, ControllerSettings, NetworkSettings, SearchSettings
from nas_core.errors import RunError
from nas_core.search.costs import Costs
from nas_core.search.journal import Record
from nas_core.search.run import (
    ROUNDS_FILE,
    lacks_diagnostics,
    learn,
    propose,
    rebuild_diagnostics,
    round_diagnostics,
)

NUM_ROUNDS = 3


def settings_of(strategy: str, rounds_ahead: int = 0) -> SearchSettings:
    return SearchSettings.model_validate(
        {
            "strategy": strategy,
            "batch_size": 2,
            "rounds_ahead": rounds_ahead,
            "controller": ControllerSettings(epochs=1),
            "constraints": ConstraintSettings(max_parameters=None),
        }
    )


def costs_of(folder: Path) -> Costs:
    compute = Compute(torch.device("cpu"), bf16=False)
    return Costs(folder / "latencies.json", NetworkSettings(), 2, (32, 32), compute)


def run_search(folder: Path, settings: SearchSettings) -> list[Record]:
    """Rounds with made-up rewards, and a failure, as a journal has them."""
    records: list[Record] = []
    for number in range(NUM_ROUNDS):
        rewards = [0.1 * number, None]
        for reward, proposal in zip(
            rewards, propose(folder, settings, 0, costs_of(folder), number), strict=True
        ):
            records.append(
                Record(
                    index=len(records),
                    round=number,
                    candidate=len(records) + 1,
                    id=proposal.genotype.id,
                    genotype=proposal.genotype.to_dict(),
                    status="failed" if reward is None else "finished",
                    reward=reward,
                    num_parameters=1,
                    macs=1,
                    seed=0,
                    reason="no finite loss" if reward is None else "",
                )
            )
        learn(folder, settings, 0, costs_of(folder), rewards)
    return records


@pytest.mark.parametrize(("strategy", "ahead"), [("ppo", 0), ("ppo", 1), ("evolution", 0)])
def test_lost_diagnostics_are_made_again(tmp_path: Path, strategy: str, ahead: int) -> None:
    settings = settings_of(strategy, ahead)
    records = run_search(tmp_path, settings)
    path = tmp_path / ROUNDS_FILE
    whole = path.read_bytes()
    assert not lacks_diagnostics(tmp_path)
    for damage in (b"", whole[: whole.index(b"\n") + 1], None):
        path.unlink() if damage is None else path.write_bytes(damage)
        assert lacks_diagnostics(tmp_path)
        rebuilt = rebuild_diagnostics(tmp_path, settings, 0, costs_of(tmp_path), records)
        assert rebuilt == NUM_ROUNDS and path.read_bytes() == whole


def test_diagnostics_that_cannot_be_made_again_are_left_out(tmp_path: Path) -> None:
    settings = settings_of("random")
    records = run_search(tmp_path, settings)
    whole = round_diagnostics(tmp_path)
    (tmp_path / ROUNDS_FILE).unlink()
    records[2] = records[2].model_copy(update={"id": "another"})
    assert rebuild_diagnostics(tmp_path, settings, 0, costs_of(tmp_path), records) == 1
    assert not lacks_diagnostics(tmp_path)
    assert round_diagnostics(tmp_path) == {0: whole[0], 1: {}, 2: {}}


@pytest.mark.parametrize(
    "content",
    [
        "nonsense", "{", "[]", "null", "{}", '{"reward_mean": 1}', '{"round": Infinity}',
        '{"round": 1e400}', '{"round": 0, "loss": Infinity}', '{"round": 0, "loss": NaN}',
        '{"round": 0, "loss": 1e308}', '{"round": "0"}', '{"round": true}', '{"round": 0, "a": []}',
        "\n", "[" * 100_000, '{"round": 0}\n{"round"', '{"round": 0.5}', '{"round": -1}',
        '{"round": 0}\n{"round": 0}',
    ],
)  # fmt: skip
def test_damaged_diagnostics_are_refused_in_a_line(tmp_path: Path, content: str) -> None:
    (tmp_path / ROUNDS_FILE).write_text(content)
    with pytest.raises(RunError, match=r"rounds\.jsonl cannot be read: .*; delete it") as error:
        round_diagnostics(tmp_path)
    assert len(str(error.value).splitlines()) == 1


def test_a_diagnostic_that_is_not_finite_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nas_core.search.random_search import RandomSearch

    monkeypatch.setattr(RandomSearch, "_learn", lambda self, results: {"loss": float("nan")})
    run_search(tmp_path, settings_of("random"))
    assert all("loss" not in values for values in round_diagnostics(tmp_path).values())
