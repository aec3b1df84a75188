"""Damaged checkpoints, weights, arrays, tables; and random damage to every kind of file."""

import copy
import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from nas_core.analysis.leaderboard import SearchMetrics, read_leaderboard
from nas_core.config import EarlyStoppingSettings, NetworkSettings, SearchSettings, TrainSettings
from nas_core.data.images import read_image
from nas_core.data.prepared import PreparedData
from nas_core.loading import load_settings, validate_settings
from nas_core.models.checkpoint import load_segmenter
from nas_core.models.compute import Compute
from nas_core.models.encoder import Encoder, load_encoder_weights
from nas_core.models.state import load_plain
from nas_core.search.controller import Controller
from nas_core.search.journal import Journal, load_state, save_state
from nas_core.search.rounds import STATE_FILE, restore
from nas_core.search.strategy import Result, make_strategy
from nas_core.space.architectures import ARCHITECTURES
from nas_core.space.genotype import Genotype
from nas_core.training.full import _Training
from nas_core.training.full_task import FullTask
from nas_core.training.resuming import load_checkpoint, save_checkpoint
from tests.robustness.cases import accepted_or_refused, files, refused
from tests.robustness.test_files import prepared
from tests.robustness.test_images import GOOD, JPEG, picture

pytestmark = pytest.mark.timeout(120)

FUZZ = settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)


class Evil:
    """Unpickled, it would write a file."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return exec, ("open('executed', 'w')",)


def zipped(path: Path, **entries: bytes) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(f"archive/{name.replace('__', '/')}", content)


def compressed(path: Path) -> None:
    """A checkpoint whose records are compressed: 100 MB of zeros in 100 KB."""
    content = io.BytesIO()
    torch.save({"a": torch.zeros(25_000_000)}, content)
    with (
        zipfile.ZipFile(content) as source,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for entry in source.infolist():
            new.writestr(entry.filename, source.read(entry))


def flipped(path: Path) -> None:
    torch.save({"a": torch.arange(5000)}, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGED: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("hello"),
    "zeros": lambda path: path.write_bytes(bytes(1000)),
    "start of a zip": lambda path: path.write_bytes(b"PK\x03\x04 and no more"),
    "empty zip": lambda path: zipfile.ZipFile(path, "w").close(),
    "zip of text": lambda path: zipped(path, data=b"hello"),
    "zip with a bad pickle": lambda path: zipped(path, data__pkl=b"\x80\x02no", version=b"3\n"),
    "cut": lambda path: (
        torch.save({"a": torch.zeros(99)}, path),
        path.write_bytes(path.read_bytes()[:700]),
    ),
    "one bit": flipped,
    "bomb": compressed,
    "pickle": lambda path: path.write_bytes(pickle.dumps({"format": 1})),
    "evil pickle": lambda path: path.write_bytes(pickle.dumps(Evil())),
    "evil zip": lambda path: torch.save({"format": 1, "evil": Evil()}, path),
    "a list": lambda path: torch.save([1, 2], path),
    "a tensor": lambda path: torch.save(torch.zeros(3), path),
    "an empty dict": lambda path: torch.save({}, path),
    "numpy": lambda path: torch.save({"a": np.zeros(3)}, path),
    "safetensors": lambda path: path.write_bytes(b"\x02\0\0\0\0\0\0\0{}"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_states_and_weights(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "file.pt"
    DAMAGED[name](path)
    with refused("file.pt"):
        load_state(path)
    with refused("file.pt") as raised:
        load_encoder_weights("file.pt", tmp_path)
    assert "weights_only" not in str(raised.value), "torch's advice would execute the file"
    assert not (tmp_path / "executed").exists()


SMALL = SearchSettings(early_stopping=EarlyStoppingSettings(enabled=False), batch_size=2)


@pytest.fixture(scope="module")
def state() -> dict[str, Any]:
    """Of a strategy that has learned from a round and proposed the next."""
    strategy = make_strategy(SMALL, 0)
    proposals = strategy.ask(2)
    strategy.tell([Result(proposal, 0.5) for proposal in proposals])
    strategy.ask(2)
    return strategy.state_dict()


def changed(state: dict[str, Any], key: str, change: Callable[[Any], object]) -> dict[str, Any]:
    return {**state, key: change(copy.deepcopy(state[key]))}


def with_averages(adam: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    """`value` in all of Adam's averages; a number in the shape that they have."""
    for averages in adam["state"].values():
        is_number = isinstance(value, torch.Tensor) and not value.ndim
        averages[name] = value.expand_as(averages[name]).clone() if is_number else value
    return adam


def with_setting(adam: dict[str, Any], name: str, value: object) -> dict[str, Any]:
    adam["param_groups"][0][name] = value
    return adam


NOT_KNOWN: tuple[Any, ...] = (
    "x", {}, [3], [1.5, "a"], ("a", (1, 2)), torch.full((3,), torch.nan)
)  # fmt: skip
BAD_STATES: dict[str, Callable[[dict[str, Any]], object]] = {
    "a list": lambda state: [1],
    "none": lambda state: None,
    "empty": lambda state: {},
    "of another strategy": lambda state: {**state, "strategy": "random"},
    "strategy is a number": lambda state: {**state, "strategy": 3},
    "of another controller": lambda state: {**state, "autoregressive": False},
    **{
        f"without {key}": lambda state, key=key: {k: v for k, v in state.items() if k != key}
        for key in (
            "controller",
            "optimizer",
            "generator",
            "rewards",
            "buffer",
            "autoregressive",
            "known",
        )
    },
    "controller is a text": lambda state: {**state, "controller": "x"},
    "controller of another shape": lambda state: {
        **state,
        "controller": {k: v[..., :1] for k, v in state["controller"].items()},
    },
    "optimizer is empty": lambda state: {**state, "optimizer": {}},
    "generator is short": lambda state: {**state, "generator": torch.zeros(3, dtype=torch.uint8)},
    "generator is a text": lambda state: {**state, "generator": "x"},
    "rewards are a text": lambda state: {**state, "rewards": "x"},
    "known is a number": lambda state: {**state, "known": 3},
    "buffer is a text": lambda state: {**state, "buffer": "x"},
    "buffer of other keys": lambda state: {**state, "buffer": {"a": 1}},
    "rewards are not finite": lambda state: {**state, "rewards": state["rewards"] * torch.nan},
    "rewards are not in memory": lambda state: {**state, "rewards": torch.zeros(2, device="meta")},
    **{
        f"known is {known!r:.20}": lambda state, known=known: {**state, "known": known}
        for known in NOT_KNOWN
    },
    "weights are not finite": lambda state: changed(
        state, "controller", lambda weights: {k: v * torch.nan for k, v in weights.items()}
    ),
    "weights of another type": lambda state: changed(
        state, "controller", lambda weights: {k: v.double() for k, v in weights.items()}
    ),
    **{
        f"{name} of Adam is {value!r:.30}": lambda state, name=name, value=value: changed(
            state, "optimizer", lambda adam: with_averages(adam, name, value)
        )
        for name, value in (
            ("step", "x"),
            ("step", torch.tensor(-1.0)),
            ("exp_avg", torch.zeros(1)),
            ("exp_avg", torch.tensor(torch.nan)),
            ("exp_avg_sq", torch.tensor(-1.0)),
        )
    },
    **{
        f"{name} of Adam's settings is {value!r}": lambda state, name=name, value=value: changed(
            state, "optimizer", lambda adam: with_setting(adam, name, value)
        )
        for name, value in (("lr", "x"), ("lr", 0.5), ("lr", float("nan")), ("betas", 3))
    },
    "buffer with a choice that there is not": lambda state: changed(
        state, "buffer", lambda buffer: {**buffer, "choices": buffer["choices"] + 1000}
    ),
    "buffer of two lengths": lambda state: changed(
        state, "buffer", lambda buffer: {**buffer, "rewards": buffer["rewards"][1:]}
    ),
    "log_probs of a choice are missing": lambda state: changed(
        state,
        "open",
        lambda opened: [{**opened[0], "log_probs": [[0.0]] * len(opened[0]["choices"])}],
    ),
}


@pytest.mark.parametrize("name", BAD_STATES)
def test_states_of_a_strategy(tmp_path: Path, name: str, state: dict[str, Any]) -> None:
    save_state(tmp_path / STATE_FILE, {"round": 1, "strategy": BAD_STATES[name](state)})
    with refused(STATE_FILE):
        restore(tmp_path, SMALL, 0)


@pytest.mark.parametrize("reward", [float("nan"), "x", None])
def test_states_of_evolution(tmp_path: Path, reward: object) -> None:
    evolution = SMALL.model_copy(update={"strategy": "evolution"})
    state = make_strategy(evolution, 0).state_dict()
    choices = list(make_strategy(evolution, 0).ask(1)[0].choices)
    save_state(
        tmp_path / STATE_FILE,
        {"round": 1, "strategy": {**state, "population": [(choices, reward)]}},
    )
    with refused(STATE_FILE):
        restore(tmp_path, evolution, 0)


def test_a_controller_that_went_astray_says_so() -> None:
    controller = Controller(torch.Generator(), True)
    with torch.no_grad():
        controller.first_input.fill_(torch.nan)
    with refused("search.controller.learning_rate"):
        controller.sample(2, torch.Generator())


@pytest.mark.parametrize("number", [None, "1", 1.5, -1, [1], True, torch.ones(1)])
def test_rounds(tmp_path: Path, number: object) -> None:
    save_state(tmp_path / STATE_FILE, {"round": number})
    with refused(STATE_FILE):
        restore(tmp_path, SMALL, 0)


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> _Training:
    folder = prepared(tmp_path_factory.mktemp("prepared") / "data")
    network = NetworkSettings(agg_size=4, sep_repeats=1)
    train = TrainSettings(epochs=2, batch_size=2, crop_height=32, crop_width=32)
    compute = Compute(torch.device("cpu"), bf16=False)
    arch0 = ARCHITECTURES["arch0"]
    task = FullTask(PreparedData.open(folder), None, network, train, compute)
    return _Training(task, arch0, 0)


BAD_CHECKPOINTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "format 2": lambda content: {**content, "format": 2},
    **{
        f"without {key}": lambda content, key=key: {k: v for k, v in content.items() if k != key}
        for key in ("format", "identity", "architecture", "num_classes", "history", "state")
    },
    "history is a text": lambda content: {**content, "history": "x"},
    "history is a number": lambda content: {**content, "history": 3},
    "history of numbers": lambda content: {**content, "history": [1]},
    "history of texts": lambda content: {**content, "history": [{"epoch": "one"}]},
    "history is too long": lambda content: {**content, "history": [{"epoch": 1.0}] * 3},
    "architecture of 1 MB": lambda content: {**content, "architecture": "x" * 2**20},
    "state is a list": lambda content: {**content, "state": []},
    **{
        f"state without {key}": lambda content, key=key: {
            **content,
            "state": {k: v for k, v in content["state"].items() if k != key},
        }
        for key in ("segmenter", "average", "optimizer", "schedule")
    },
    "weights are missing": lambda content: {
        **content,
        "state": {**content["state"], "segmenter": {}},
    },
    **{
        f"weights are {dtype}": lambda content, dtype=dtype: {
            **content,
            "state": {
                **content["state"],
                "segmenter": {k: v.to(dtype) for k, v in content["state"]["segmenter"].items()},
            },
        }
        for dtype in (torch.int32, torch.bool, torch.complex64, torch.float8_e4m3fn)
    },
    "weights are NaN": lambda content: {
        **content,
        "state": {
            **content["state"],
            "average": {
                k: v * torch.nan if v.is_floating_point() else v
                for k, v in content["state"]["average"].items()
            },
        },
    },
    "weights of another shape": lambda content: {
        **content,
        "state": {
            **content["state"],
            "segmenter": {
                k: v[..., :0] if v.ndim else v for k, v in content["state"]["segmenter"].items()
            },
        },
    },
    "optimizer is empty": lambda content: {
        **content,
        "state": {**content["state"], "optimizer": {}},
    },
    "schedule is a text": lambda content: {
        **content,
        "state": {**content["state"], "schedule": "x"},
    },
}


@pytest.mark.parametrize("name", BAD_CHECKPOINTS)
def test_checkpoints(tmp_path: Path, name: str, training: _Training) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, training.made, training.state)
    torch.save(BAD_CHECKPOINTS[name](load_plain(path)), path)
    with refused("checkpoint.pt"):
        load_checkpoint(path, training.made, training.state)


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_checkpoints(tmp_path: Path, name: str, training: _Training) -> None:
    path = tmp_path / "checkpoint.pt"
    DAMAGED[name](path)
    with refused("checkpoint.pt"):
        load_checkpoint(path, training.made, training.state)


def encoder_state() -> dict[str, Tensor]:
    return Encoder().state_dict()


BAD_ENCODERS: dict[str, Callable[[dict[str, Any]], object]] = {
    "one is missing": lambda state: {k: v for k, v in state.items() if "features.0.0" not in k},
    "one is a text": lambda state: {**state, "features.0.0.weight": "x"},
    "one is NaN": lambda state: {
        **state,
        "features.0.0.weight": torch.full((32, 3, 3, 3), torch.nan),
    },
    "a variance is negative": lambda state: {
        **state,
        "features.0.1.running_var": -torch.ones(32),
    },
    "a count is NaN": lambda state: {
        **state,
        "features.0.1.num_batches_tracked": torch.tensor(torch.nan),
    },
    "one has another shape": lambda state: {
        **state,
        "features.0.0.weight": torch.zeros(32, 3, 5, 5),
    },
    "one is immense": lambda state: {
        **state,
        "features.0.0.weight": torch.zeros(1).expand(10**6, 10**6),
    },
    "under another name": lambda state: {"state_dict": state},
}


@pytest.mark.parametrize("name", BAD_ENCODERS)
def test_encoder_weights(tmp_path: Path, name: str) -> None:
    torch.save(BAD_ENCODERS[name](encoder_state()), tmp_path / "encoder.pt")
    with refused("encoder.pt"):
        load_encoder_weights("encoder.pt", tmp_path)


GENOTYPE = '{"templates": []}'
TABLE = {"id": ["a"], "status": ["finished"], "reward": [0.5], "genotype": [GENOTYPE]}
BAD_TABLES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("a,b\n1,2\n"),
    "magic only": lambda path: path.write_bytes(b"PAR1PAR1"),
    "immense footer": lambda path: path.write_bytes(
        b"PAR1" + b"\xff" * 50 + b"\xff\xff\xff\x7fPAR1"
    ),
    "cut": lambda path: (
        pd.DataFrame(TABLE).to_parquet(path),
        path.write_bytes(path.read_bytes()[:99]),
    ),
    "folder": lambda path: path.mkdir(),
    **{
        f"without {key}": lambda path, key=key: (
            pd.DataFrame(TABLE).drop(columns=key).to_parquet(path)
        )
        for key in TABLE
    },
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_tables_of_candidates(tmp_path: Path, name: str) -> None:
    BAD_TABLES[name](tmp_path / "candidates.parquet")
    with refused("candidates.parquet"):
        read_leaderboard(tmp_path / "candidates.parquet")


@pytest.mark.parametrize(
    "content", ["", "null", "{}", '{"search": 3}', '{"search": "../../x"}', "["]
)
def test_the_name_of_a_search(tmp_path: Path, content: str) -> None:
    (tmp_path / "metrics.json").write_text(content)
    with refused("metrics.json"):
        SearchMetrics.read(tmp_path / "metrics.json")


def _pickled(path: Path) -> None:
    np.save(path, np.array([Evil()], dtype=object), allow_pickle=True)


BAD_ARRAYS: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("hello"),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:150]),
    "header cut": lambda path: path.write_bytes(path.read_bytes()[:20]),
    "zip": lambda path: zipped(path, a=b"x"),
    "pickle": lambda path: path.write_bytes(pickle.dumps(Evil())),
    "objects": _pickled,
    "floats": lambda path: np.save(path, np.zeros(216)),
    "one less": lambda path: np.save(path, np.zeros(144, np.uint8)),
    "not flat": lambda path: np.save(path, np.zeros((3, 4, 6, 3), np.uint8)),
    "link": lambda path: _link(path),
}


def _link(path: Path) -> None:
    path.rename(path.parents[1] / "out.npy")
    path.symlink_to(path.parents[1] / "out.npy")


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_prepared_arrays(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = prepared(tmp_path / "data")
    BAD_ARRAYS[name](folder / "train_images.npy")
    with refused("train_images.npy"):
        PreparedData.open(folder)
    assert not (tmp_path / "executed").exists()


# Random damage: what is left is read as something, or refused with a message.
damage = st.one_of(
    st.binary(max_size=300).map(lambda noise: lambda content: noise),
    st.floats(0, 1).map(lambda share: lambda content: content[: int(share * len(content))]),
    st.lists(st.tuples(st.floats(0, 0.999999), st.integers(0, 7)), min_size=1, max_size=8).map(
        lambda places: lambda content: flip(content, places)
    ),
    st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=40)).map(
        lambda it: (
            lambda content: (
                content[: int(it[0] * len(content))] + it[1] + content[int(it[0] * len(content)) :]
            )
        )
    ),
)


def flip(content: bytes, places: list[tuple[float, int]]) -> bytes:
    changed = bytearray(content)
    for place, bit in places:
        changed[int(place * len(changed))] ^= 1 << bit
    return bytes(changed)


@pytest.fixture(scope="module")
def originals(
    tmp_path_factory: pytest.TempPathFactory, whole_project: Path, training: _Training
) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("originals")
    prepared(folder / "data")
    save_state(
        folder / "strategy.pt", {"round": 1, "strategy": make_strategy(SMALL, 0).state_dict()}
    )
    save_checkpoint(folder / "checkpoint.pt", training.made, training.state)
    torch.save(encoder_state(), folder / "encoder.pt")
    pd.DataFrame(TABLE).to_parquet(folder / "candidates.parquet")
    trained = whole_project / "artifacts" / "trainings" / "arch1-0123" / "model.safetensors"
    found = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return found | {
        "journal.jsonl": next(whole_project.rglob("journal.jsonl")).read_bytes(),
        "model.safetensors": trained.read_bytes(),
        "a.png": GOOD,
        "a.jpg": JPEG,
        "a.tif": picture("TIFF", compression="tiff_lzw"),
        "a.webp": picture("WEBP"),
        "a.bmp": picture("BMP"),
        "genotype.json": str(ARCHITECTURES["arch0"].to_dict()).replace("'", '"').encode(),
        "params.yaml": (whole_project / "params.yaml").read_bytes(),
    }


FUZZED: dict[str, Callable[[Path, _Training], object]] = {
    "strategy.pt": lambda path, _: restore(path.parent, SMALL, 0),
    "checkpoint.pt": lambda path, training: load_checkpoint(path, training.made, training.state),
    "encoder.pt": lambda path, _: load_encoder_weights(path.name, path.parent),
    "model.safetensors": lambda path, _: load_segmenter(path),
    "candidates.parquet": lambda path, _: read_leaderboard(path),
    "journal.jsonl": lambda path, _: Journal.read(path),
    "a.png": lambda path, _: read_image(path),
    "a.jpg": lambda path, _: read_image(path, upright=True),
    "a.tif": lambda path, _: read_image(path, upright=True),
    "a.webp": lambda path, _: read_image(path, upright=True),
    "a.bmp": lambda path, _: read_image(path),
    "genotype.json": lambda path, _: Genotype.load(path),
    "params.yaml": lambda path, _: load_settings(root=path.parent),
}


@pytest.mark.parametrize("name", FUZZED)
@FUZZ
@given(spoil=damage)
def test_random_damage(
    name: str,
    originals: dict[str, bytes],
    training: _Training,
    tmp_path: Path,
    spoil: Callable[[bytes], bytes],
) -> None:
    path = tmp_path / name
    path.write_bytes(spoil(originals[name]))
    accepted_or_refused(lambda: FUZZED[name](path, training))


@pytest.mark.parametrize("name", ["manifest.json", "train_images.npy"])
@FUZZ
@given(spoil=damage)
def test_random_damage_to_prepared_data(
    name: str, tmp_path_factory: pytest.TempPathFactory, spoil: Callable[[bytes], bytes]
) -> None:
    folder = prepared(tmp_path_factory.mktemp("prepared") / "data")
    path = folder / name
    path.write_bytes(spoil(path.read_bytes()))
    accepted_or_refused(lambda: PreparedData.open(folder))


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([10**400, -(10**400), "../x", "\x00", "\ud800", float("nan")]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["templates", "structure", "search", "proxy", "seed", "tracking", "uri"]
            )
            | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(json_values)
@example({"templates": [[10**400] * 3] * 3, "structure": []})
@example({"tracking": {"uri": 3}, "search": {"proxy": None}})
def test_any_values(values: object) -> None:
    accepted_or_refused(lambda: Genotype.from_dict(values, "here"))
    accepted_or_refused(lambda: validate_settings(values, "params.yaml"))


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60) | json_values.map(lambda value: yaml.safe_dump(str(value))))
def test_any_override(text: str) -> None:
    accepted_or_refused(lambda: load_settings(overrides=[text]))
    accepted_or_refused(lambda: load_settings(overrides=[f"search.{text}={text}"]))


def test_the_corpus_covers_the_kinds() -> None:
    kinds = ("params", "dataset", "lists", "genotypes", "journals", "manifests", "cards")
    assert all(len(files(kind)) >= 20 for kind in kinds)
