"""The checkpoint of a full training: what it has computed, checked before it is believed."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from nas_core.base.errors import RunError, first_line, printable, shown
from nas_core.base.files import write_bytes
from nas_core.models.segmenter import Segmenter
from nas_core.models.state import DAMAGED, check_tensor, load_plain
from nas_core.training.averaging import PolyakAverage

CHECKPOINT_FORMAT = 1


@dataclass(frozen=True)
class Made:
    """Which training a checkpoint is of."""

    identity: str
    """See `FullTask.identity`."""
    architecture: str
    """Its id."""
    num_classes: int
    num_epochs: int
    steps_per_epoch: int


@dataclass
class State:
    """What a training has computed so far."""

    segmenter: Segmenter
    average: PolyakAverage
    optimizer: Optimizer
    schedule: LambdaLR
    history: list[dict[str, float]] = field(default_factory=list)
    """A row for each epoch."""
    devices: list[str] = field(default_factory=list)
    """That it was computed on, in words, with torch's version."""


def save_checkpoint(path: Path, made: Made, state: State) -> None:
    """Replace the file by the state.

    Raises:
        OSError: it cannot be written; what was there is as it was.
    """
    content = {
        "format": CHECKPOINT_FORMAT,
        "identity": made.identity,
        "architecture": made.architecture,
        "num_classes": made.num_classes,
        "history": state.history,
        "devices": state.devices,
        "state": {
            "segmenter": state.segmenter.state_dict(),
            "average": state.average.state_dict(),
            "optimizer": state.optimizer.state_dict(),
        },
    }
    # Through memory: on a full disk torch.save would raise an error of its own kind.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_bytes(path, buffer.getvalue())


def load_checkpoint(path: Path, made: Made, state: State) -> None:
    """Bring the state of a training that has not begun to that of the file.

    What follows from the training's settings stays as it is.

    Raises:
        RunError: the file is unreadable, malformed or of another training.
    """
    try:
        content = load_plain(path)
    except (OSError, ValueError) as error:
        raise RunError(
            f"{path} is not a readable checkpoint ({first_line(error)}); delete it to train "
            "from the start"
        ) from None
    if not isinstance(content, dict) or not _is(content.get("format"), CHECKPOINT_FORMAT):
        raise RunError(f"{path} is not a checkpoint of this program; move it away")
    here: dict[str, int | str] = {
        "architecture": made.architecture,
        "num_classes": made.num_classes,
    }
    for key, value in here.items():
        if not _is(content.get(key), value):
            raise RunError(
                f"{path} has {key} {shown(content.get(key))}, this training has {value!r}; "
                "move it away to train from the start"
            )
    if not _is(content.get("identity"), made.identity):
        raise RunError(
            f"{path} was made with other settings, data or seed; delete it to train anew"
        )
    try:
        _restore(content, made, state)
    except DAMAGED as error:
        raise RunError(
            f"{path} is malformed ({first_line(error)}); delete it to train from the start"
        ) from None


def _restore(content: dict[str, Any], made: Made, state: State) -> None:
    """Raise one of `DAMAGED` where something is missing, or is not of these epochs."""
    history, saved = content["history"], content["state"]
    if not 1 <= len(history) <= made.num_epochs:
        raise ValueError(f"{len(history)} epochs of {made.num_epochs}")
    for number, row in enumerate(history, start=1):
        _check_row(row, number)
    if not isinstance(content["devices"], list):
        raise ValueError("devices are no list")
    steps = len(history) * made.steps_per_epoch
    taken = steps - sum(row["skipped_steps"] for row in history)
    networks = {"segmenter": state.segmenter, "average": state.average}
    for key, network in networks.items():
        for name, wanted in network.state_dict().items():
            check_tensor(name, saved[key][name], wanted)
    if (averaged := int(saved["average"]["n_averaged"])) != taken:
        raise ValueError(f"an average of {averaged} steps, not {taken}")
    moments, own = saved["optimizer"]["state"], state.optimizer.state_dict()
    _check_optimizer(moments, saved["segmenter"], state, taken)
    for key, network in networks.items():
        network.load_state_dict(saved[key])
    state.optimizer.load_state_dict({**own, "state": moments})
    _set_schedule(state, steps)
    state.history = [dict(row) for row in history]
    state.devices = [printable(device) for device in content["devices"]]


def _set_schedule(state: State, steps: int) -> None:
    """To that after so many steps."""
    schedule = state.schedule
    rates = [
        rate * factor(steps)
        for rate, factor in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)
    ]
    for group, rate in zip(state.optimizer.param_groups, rates, strict=True):
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
    schedule.load_state_dict({**schedule.state_dict(), "last_epoch": steps, "_last_lr": rates})


def _check_optimizer(
    moments: dict[int, dict[str, Any]], weights: dict[str, Tensor], state: State, taken: float
) -> None:
    """Raise one of `DAMAGED` unless the moments go with the weights, after so many steps."""
    parameters = [one for group in state.optimizer.param_groups for one in group["params"]]
    if not {*moments} <= {*range(len(parameters))}:
        raise ValueError("the optimizer's state is not of the network's parameters")
    names = {parameter: name for name, parameter in state.segmenter.named_parameters()}
    for number, parameter in enumerate(parameters):
        name = names[parameter]
        if number in moments:
            _check_moments(moments[number], parameter, taken)
        # Blocks of the encoder behind the last one that is used are never trained.
        elif not torch.equal(weights[name].cpu(), parameter.cpu()):
            raise ValueError(f"the optimizer's state lacks {name}")


def _is(found: Any, wanted: int | str) -> bool:
    """Whether they are equal and of one type: a tensor would answer with a tensor."""
    return type(found) is type(wanted) and bool(found == wanted)


def _check_row(row: dict[str, float], number: int) -> None:
    """Raise a ValueError, TypeError or LookupError unless it is the `number`th of a history."""
    if any(type(value) not in (int, float) or not math.isfinite(value) for value in row.values()):
        raise ValueError(f"a value of epoch {number} is no finite number")
    if not all(isinstance(name, str) and name.isidentifier() for name in row):
        raise ValueError(f"a name of epoch {number} is none")
    if row["epoch"] != number or row["skipped_steps"] < 0 or not {"loss", "seconds"} <= row.keys():
        raise ValueError(f"epoch {number} is not as it was written")


def _check_moments(moments: dict[str, Any], parameter: Tensor, taken: float) -> None:
    """Raise one of `DAMAGED` unless it is AdamW's state of a parameter after so many steps."""
    for name in ("exp_avg", "exp_avg_sq"):
        check_tensor(name, moments[name], parameter)
    if (moments["exp_avg_sq"] < 0).any() or float(moments["step"]) != taken:
        raise ValueError(f"the optimizer's state is not that after {taken} steps")
    if {*moments} != {"exp_avg", "exp_avg_sq", "step"}:
        raise ValueError("the optimizer's state is not that of AdamW")
