"""Which networks are picked, by what, and in which company."""

from pathlib import Path
from typing import Any

import pytest

from nas_core.analysis.picking import Group, Limits, Picks, pick
from nas_core.base.errors import RunError
from nas_core.base.files import write_json
from nas_core.config import DEFAULT_ENCODER, Settings
from nas_core.search.journal import FORMAT, Confirmation, Header, Journal
from nas_core.search.latencies import LATENCY_FILE, Latencies
from tests.nas_core.analysis.searches import failed, real_candidates, record_of, write_latencies

ROWS = real_candidates(5)
IDS = [row["id"] for row in ROWS]
REWARDS = (0.40, 0.50, 0.45, 0.30)
PARAMETERS = (200_000, 300_000, 150_000, 100_000)


def write_search(
    root: Path,
    name: str,
    *,
    seed: int = 0,
    epochs_a: int = 5,
    encoder: str = DEFAULT_ENCODER,
    **changes: Any,
) -> Path:
    """A search of four networks and one that failed; the first has a latency of 50 ms."""
    folder = root / "searches" / name
    settings = Settings.model_validate(
        {
            "name": name.rpartition("-")[0],
            "seed": seed,
            "search": {"proxy": {"epochs_a": epochs_a}},
            "network": {"encoder": encoder},
        }
    ).model_dump(mode="json")
    identity = {"data": "0123", "seed": seed, "search": settings["search"], **changes}
    with Journal.create(
        folder / "journal.jsonl", Header(format=FORMAT, settings=settings, identity=identity)
    ) as journal:
        for index, (reward, parameters) in enumerate(zip(REWARDS, PARAMETERS, strict=True)):
            costs = {"num_parameters": parameters, "macs": 10 * parameters}
            journal.append(record_of(ROWS[index], index, reward=reward, **costs))
        journal.append(failed(ROWS[4], 4, "it diverged"))
    write_latencies(folder, {IDS[0]: 50.0, IDS[1]: 90.0})
    return folder


def confirm(folder: Path, index: int, rewards: tuple[float, ...]) -> None:
    with Journal.open(folder / "journal.jsonl") as journal:
        for run, reward in enumerate(rewards, start=1):
            values = {"reward": reward, "scores": (reward,), "seed": run, "status": "finished"}
            journal.append(Confirmation(confirms=IDS[index], run=run, **values))


def write_training(
    root: Path, index: int, seed: int, val: float | None, *, test: float | None = None,
    data: str = "camvid", epochs: int = 30, encoder: str = "",
) -> Path:  # fmt: skip
    folder = root / "trainings" / f"{IDS[index]}-{seed}-{epochs}{encoder}"
    network = {"encoder": encoder, "agg_size": 64, "sep_repeats": 2}
    write_json(
        folder / "training.json",
        {
            "label": IDS[index], "identity": str(seed), "started": 1.0, "id": IDS[index],
            "num_parameters": PARAMETERS[index], "macs": 10 * PARAMETERS[index], "seed": seed,
            "splits": "train" if val is not None else "train+val", "data": data,
            "data_hash": "4df1", "device": "cpu", "finished": 2.0, "history": [],
            "recipe": {
                "encoder": {}, "train": {"epochs": epochs},
                **({"network": network} if encoder else {}),
            },
            "val": {} if val is None else {"mean_iou": val},
        },
    )  # fmt: skip
    if test is not None:
        write_json(folder / "test.json", {"mean_iou": test})
    return folder


def picked(root: Path, *names: str, num: int = 9, **limits: Any) -> Picks:
    return pick(root / "searches", root / "trainings", Limits(**limits), num, names)


def ids(group: Group) -> list[str]:
    return [one.id for one in group.networks]


def test_candidates_are_picked_by_reward_and_confirmed_ones_first(tmp_path: Path) -> None:
    confirm(write_search(tmp_path, "camvid-1"), 2, (0.43, 0.47))
    (group,) = picked(tmp_path).groups
    assert (group.data, group.evidence, group.num_within) == ("camvid", "proxy", 4)
    assert ids(group) == [IDS[2], IDS[1], IDS[0], IDS[3]]
    first, second = group.networks[:2]
    assert first.seeds == 3 and first.score == pytest.approx(0.45) and first.score_error > 0
    assert second.seeds == 1 and second.score_error is None and not second.verified
    (group,) = picked(tmp_path, num=1).groups
    assert ids(group) == [IDS[2]] and group.num_within == 4


@pytest.mark.parametrize(
    ("limits", "expected", "over", "unmeasured"),
    [
        ({"parameters": 200_000}, [2, 0, 3], 1, 0),  # a limit may be reached
        ({"macs": 1_999_999}, [2, 3], 2, 0),
        ({"latency_ms": 80.0}, [0], 1, 2),
        ({"latency_ms": 90.0, "parameters": 250_000}, [0], 1, 2),
    ],
)
def test_what_is_over_a_limit_or_unmeasured_is_left_out(
    tmp_path: Path, limits: dict[str, Any], expected: list[int], over: int, unmeasured: int
) -> None:
    write_search(tmp_path, "camvid-1")
    found = picked(tmp_path, **limits)
    (group,) = found.groups
    assert ids(group) == [IDS[index] for index in expected]
    assert (found.num_networks, found.num_over, found.num_unmeasured) == (4, over, unmeasured)


def test_latencies_of_different_kinds_are_not_compared(tmp_path: Path) -> None:
    write_search(tmp_path, "camvid-1")
    board = write_search(tmp_path, "camvid-2", seed=1)
    path = board / LATENCY_FILE
    path.write_text(path.read_text().replace('"command": ""', '"command": "board {model}"'))
    assert Latencies.read(path).measured_by.command == "board {model}"
    assert picked(tmp_path).num_networks == 4
    with pytest.raises(RunError, match=r"camvid-1 in ONNX Runtime .*; camvid-2 by board \{model\}"):
        picked(tmp_path, latency_ms=80.0)
    assert picked(tmp_path, "camvid-2", latency_ms=80.0).groups


def test_full_trainings_go_first_and_test_chooses_nothing(tmp_path: Path) -> None:
    write_search(tmp_path, "camvid-1")
    write_training(tmp_path, 0, 0, 0.60, test=0.10)
    write_training(tmp_path, 0, 1, 0.64, test=0.10)
    write_training(tmp_path, 3, 0, 0.61, test=0.99)
    trained, proxy = picked(tmp_path).groups
    assert (trained.evidence, proxy.evidence) == ("trained", "proxy")
    assert ids(trained) == [IDS[0], IDS[3]]
    best = trained.networks[0]
    assert best.seeds == 2 and best.score == pytest.approx(0.62)
    assert best.score_error == pytest.approx(0.02) and best.verified and best.latency_ms == 50
    assert ids(proxy) == [IDS[1], IDS[2]]  # the others have better evidence
    write_training(tmp_path, 0, 2, 0.62)
    assert not picked(tmp_path).groups[0].networks[0].verified


def test_one_genotype_on_two_encoders_is_two_networks(tmp_path: Path) -> None:
    write_search(tmp_path, "camvid-1", encoder="mobilenet_v3_small")
    write_training(tmp_path, 0, 0, 0.60)
    trained, searched = picked(tmp_path).groups
    assert trained.networks[0].latency_ms is None and trained.networks[0].seeds == 1
    assert len(ids(searched)) == 4 and searched.networks[0].latency_ms == 90.0
    # A training of before that was recorded is of the default encoder.
    write_training(tmp_path, 0, 1, 0.70, encoder=DEFAULT_ENCODER)
    assert picked(tmp_path).groups[0].networks[0].seeds == 2
    write_training(tmp_path, 0, 2, 0.50, encoder="mobilenet_v3_small")
    found = {str(one.settings["network"]["encoder"]): one for one in picked(tmp_path).groups[:2]}
    assert found[DEFAULT_ENCODER].networks[0].seeds == 2
    (other,) = found["mobilenet_v3_small"].networks
    assert (other.seeds, other.latency_ms) == (1, 50.0)
    assert len(ids(picked(tmp_path).groups[2])) == 3
    assert ids(picked(tmp_path, "camvid-1").groups[0]) == [IDS[0]]


def test_one_recipe_does_not_compare_with_another(tmp_path: Path) -> None:
    write_training(tmp_path, 0, 0, 0.60)
    write_training(tmp_path, 1, 0, 0.70, epochs=60)
    write_training(tmp_path, 2, 0, None)  # trained on val: no score to choose by
    groups = picked(tmp_path).groups
    assert sorted(map(ids, groups)) == sorted([[IDS[0]], [IDS[1]]])


@pytest.mark.parametrize(
    ("other", "num_groups"),
    [
        ({"seed": 1}, 1),
        ({"epochs_a": 6}, 2),
        ({"data": "4567"}, 2),
        ({"code": "89ab"}, 2),
    ],
    ids=str,
)
def test_rewards_compare_within_one_proxy_task(
    tmp_path: Path, other: dict[str, Any], num_groups: int
) -> None:
    write_search(tmp_path, "camvid-1")
    confirm(write_search(tmp_path, "camvid-2", **other), 1, (0.5,))
    groups = picked(tmp_path).groups
    assert len(groups) == num_groups
    if num_groups == 1:  # each network once, with the most seeds
        assert sorted(ids(groups[0])) == sorted(IDS[:4]) and groups[0].networks[0].seeds == 2
        assert groups[0].sources == ["camvid-1", "camvid-2"]
    assert [group.sources for group in picked(tmp_path, "camvid-2").groups] == [["camvid-2"]]


def test_other_data_stand_apart(tmp_path: Path) -> None:
    write_search(tmp_path, "camvid-1")
    write_search(tmp_path, "streets-1")
    write_training(tmp_path, 0, 0, 0.60, data="streets")
    found = [(one.data, one.evidence, one.num_within) for one in picked(tmp_path).groups]
    assert found == [
        ("camvid", "proxy", 4), ("streets", "trained", 1), ("streets", "proxy", 3)
    ]  # fmt: skip


def test_what_cannot_be_picked_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(RunError, match="no network has a score yet; start a search"):
        picked(tmp_path)
    write_search(tmp_path, "camvid-1")
    with pytest.raises(RunError, match="no search 'camvid-7'; there are: camvid-1"):
        picked(tmp_path, "camvid-7")
    with pytest.raises(
        RunError, match=r"none of 4 networks .* 100,000 parameters, 50\.0 ms; of 2 "
    ):
        picked(tmp_path, parameters=250_000, latency_ms=10.0)
    damaged = tmp_path / "trainings" / "x" / "training.json"
    damaged.parent.mkdir(parents=True)
    damaged.write_text("{")
    assert len(picked(tmp_path).groups) == 1
    assert "this training is left out" in caplog.text
