"""The encoders that networks stand on: the first blocks of a classifier, and their weights.

A further one of torchvision is a line of `_TORCHVISION`. Those of timm are there by their names.
"""

from __future__ import annotations

import difflib
import http.client
import re
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import (
    MobileNetV2,
    efficientnet_b0,
    get_model_weights,
    mobilenet_v3_large,
    mobilenet_v3_small,
)

from nas_core.base.errors import SettingsError, WeightsError, first_line, shown
from nas_core.base.files import expanded
from nas_core.base.paths import shipped_models
from nas_core.config import DEFAULT_ENCODER, Settings
from nas_core.models.depthwise import DepthwiseConv2d
from nas_core.models.state import DAMAGED, FLOATS, check_tensor, load_plain

# Of images scaled to [0, 1], as torchvision's ImageNet weights expect.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

TAP_STRIDES = (4, 8)
"""Of an image's pixels to those of the two feature maps that decoders read."""
# MobileNetV2's table 2 (arXiv 1801.04381) as far as block 6: expansion, channels, blocks, stride.
BLOCK_TABLE = [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 3, 2]]

_TORCHVISION: dict[str, tuple[Callable[..., nn.Module], tuple[int, int]]] = {
    "mobilenet_v2": (partial(MobileNetV2, inverted_residual_setting=BLOCK_TABLE), (3, 6)),
    "mobilenet_v3_small": (mobilenet_v3_small, (1, 3)),
    "mobilenet_v3_large": (mobilenet_v3_large, (3, 6)),
    # Blocks that are skipped at random would not be the same after an interruption.
    "efficientnet_b0": (partial(efficientnet_b0, stochastic_depth_prob=0.0), (2, 3)),
}
"""How each is built, and its last blocks at 1/4 and at 1/8 of an image's size."""
_WITH_WIDTHS = ("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large")
_WIDTH = re.compile(r"(?P<base>.+)_x(?P<width>[0-9]\.[0-9]{1,3})")
_MIN_WIDTH, _MAX_WIDTH = 0.1, 4.0
_TIMM = "timm/"


class Encoder(nn.Module):
    """A classifier's first blocks as far as 1/8 of an image's size.

    Args:
        name: see `NetworkSettings.encoder`.

    Attributes:
        tap_channels: of the two feature maps.

    Raises:
        SettingsError: there is none of that name, or it has no such feature maps.
    """

    def __init__(self, name: str = DEFAULT_ENCODER) -> None:
        super().__init__()
        self.features: nn.Module
        if name.startswith(_TIMM):
            self.taps: tuple[int, int] | None = None
            self.features, self.tap_channels = _from_timm(name)
        else:
            build, self.taps = _from_torchvision(name)
            blocks: nn.Sequential = build(num_classes=1).features[: self.taps[1] + 1]
            first, second = (_out_channels(blocks[tap]) for tap in self.taps)
            self.features, self.tap_channels = blocks, (first, second)
        _use_fast_depthwise(self.features)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images (N, 3, H, W) to taps (N, C1, H/4, W/4) and (N, C2, H/8, W/8).

        Sizes that do not divide are rounded up.
        """
        if self.taps is None:
            first, second = self.features(images)
            return first, second
        found = []
        features = images
        for index, block in enumerate(cast(nn.Sequential, self.features)):
            features = block(features)
            if index in self.taps:
                found.append(features)
        first, second = found
        return first, second


def encoder_parts(name: str) -> tuple[tuple[str, str], tuple[str, str]]:
    """What stands before the first tap and between the two, each in two lines for a drawing."""
    if name.startswith(_TIMM):
        label = name.removeprefix(_TIMM)
        return (label, "to 1/4"), (label, "to 1/8")
    _, (first, second) = _from_torchvision(name)
    label = "MobileNetV2" if name == DEFAULT_ENCODER else name
    return (label, f"features 0 to {first}"), (label, f"features {first + 1} to {second}")


def _from_torchvision(name: str) -> tuple[Callable[..., Any], tuple[int, int]]:
    if name in _TORCHVISION:
        return _TORCHVISION[name]
    found = _WIDTH.fullmatch(name)
    if found is None or found["base"] not in _TORCHVISION:
        known = [*_TORCHVISION, *(f"{base}_x0.5" for base in _WITH_WIDTHS)]
        raise SettingsError(
            f"network.encoder = {shown(name)}: there are {', '.join(_TORCHVISION)}, those of "
            f"{', '.join(_WITH_WIDTHS)} in other widths, as {_WITH_WIDTHS[0]}_x0.5, and "
            f"timm/NAME for each of timm's{_did_you_mean(name, known)}"
        )
    if found["base"] not in _WITH_WIDTHS:
        raise SettingsError(f"network.encoder = {name!r}: {found['base']} has one width alone")
    width = float(found["width"])
    if not _MIN_WIDTH <= width <= _MAX_WIDTH or width == 1:
        raise SettingsError(
            f"network.encoder = {name!r}: a width is from {_MIN_WIDTH} to {_MAX_WIDTH}, and that "
            "of 1.0 goes without saying"
        )
    build, taps = _TORCHVISION[found["base"]]
    return partial(build, width_mult=width), taps


def _out_channels(block: nn.Module) -> int:
    """Of a block that ends in a batch norm, as all that are named here."""
    return [part.num_features for part in block.modules() if isinstance(part, nn.BatchNorm2d)][-1]


def _from_timm(name: str, *, pretrained: bool = False) -> tuple[nn.Module, tuple[int, int]]:
    """A module that gives both feature maps, and their channels."""
    taps, channels = _timm_taps(name)
    return _build_timm(name, out_indices=taps, pretrained=pretrained), channels


def _build_timm(name: str, **options: Any) -> nn.Module:
    import timm

    # This form of timm's leaves out what is behind the last of the maps.
    network: nn.Module = timm.create_model(
        name.removeprefix(_TIMM), features_only=True, feature_cls="getter", **options
    )
    return network


@cache
def _timm_taps(name: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """The numbers of both feature maps among all that it has, and their channels.

    Raises:
        SettingsError: see `Encoder`.
    """
    try:
        import timm
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"network.encoder = {shown(name)}: the package {error.name} is missing; install "
            "nas-seg[timm]"
        ) from None
    kind = name.removeprefix(_TIMM)
    # Other forms of a name are addresses, from which timm would download what is said there.
    if not re.fullmatch(r"\w+(\.\w+)?", kind, re.ASCII) or not timm.is_model(kind):
        meant = _did_you_mean(kind, timm.list_models(), _TIMM)
        raise SettingsError(f"network.encoder = {shown(name)}: timm has no such model{meant}")
    try:
        config = timm.get_pretrained_cfg(kind)
    except RuntimeError as error:  # weights that there are none of, as in MODEL.WEIGHTS
        raise SettingsError(f"network.encoder = {shown(name)}: {first_line(error)}") from None
    if config and (tuple(config.mean), tuple(config.std)) != (IMAGENET_MEAN, IMAGENET_STD):
        raise SettingsError(
            f"network.encoder = {name!r}: it takes images less {config.mean} by {config.std}, and "
            f"here they are less {IMAGENET_MEAN} by {IMAGENET_STD}; choose another one"
        )
    try:
        with torch.device("meta"):
            strides: list[int] = cast(Any, _build_timm(name)).feature_info.reduction()
            first, second = (
                len(strides) - 1 - strides[::-1].index(wanted) for wanted in TAP_STRIDES
            )
            probe = _build_timm(name, out_indices=(first, second))
            maps = probe.eval()(torch.empty(1, 3, 64, 64))
            if [one.shape[2:] for one in maps] != [(64 // by, 64 // by) for by in TAP_STRIDES]:
                raise ValueError
    except (RuntimeError, ValueError, TypeError, AssertionError, AttributeError) as error:
        raise SettingsError(
            f"network.encoder = {name!r}: it has no feature maps at 1/4 and 1/8 of an image's size "
            f"for images of any size ({first_line(error) or 'they are of other sizes'}); choose "
            "another one"
        ) from None
    return (first, second), (maps[0].shape[1], maps[1].shape[1])


def _did_you_mean(name: str, known: list[str], prefix: str = "") -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {prefix}{near[0]}?" if near else ""


def _use_fast_depthwise(blocks: nn.Module) -> None:
    for parent in list(blocks.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Conv2d and _is_depthwise(child):
                fast = DepthwiseConv2d(child.in_channels, child.kernel_size[0], child.stride[0])
                fast.weight = child.weight
                setattr(parent, name, fast)


def _is_depthwise(conv: nn.Conv2d) -> bool:
    """Whether it is one of those that `DepthwiseConv2d` computes."""
    kernel, stride = conv.kernel_size[0], conv.stride[0]
    form = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.bias)
    same = ((kernel, kernel), (stride, stride), (kernel // 2, kernel // 2), (1, 1), None)
    return 1 < conv.groups == conv.in_channels == conv.out_channels and form == same


def check_encoder(name: str) -> dict[str, Tensor]:
    """The names and shapes of an encoder's state dict, without values.

    Raises:
        SettingsError: see `Encoder`.
    """
    with torch.device("meta"):
        return Encoder(name).state_dict()


def encoder_weights(settings: Settings, root: Path) -> dict[str, Tensor] | None:
    """`load_encoder_weights` of the settings."""
    return load_encoder_weights(settings.encoder.weights, root, settings.network.encoder)


def load_encoder_weights(
    weights: str, root: Path, encoder: str = DEFAULT_ENCODER
) -> dict[str, Tensor] | None:
    """The state dict of an `Encoder`, or None for random weights.

    Args:
        weights: imagenet (those that torchvision or timm have, downloaded once), none, the name of
            a shipped model, or the path of a .pt or .safetensors file. Further blocks in it are
            left out, and of a network of this program all but its encoder.
        root: the project's folder, where a relative path starts.
        encoder: its name.

    Raises:
        SettingsError: there is no such encoder, or none with weights.
        WeightsError: the download fails, or the file is missing, unreadable or of another network,
            or its weights are no dense tensors of a floating-point type.
    """
    expected = check_encoder(encoder)
    if weights == "none":
        return None
    if weights == "imagenet":
        return _select(_download(encoder), expected, "the ImageNet weights", encoder)
    path = shipped_models(root).get(weights) or root / expanded(weights)
    if not path.is_file():
        raise WeightsError(
            f"encoder.weights: {path} is not a file; give the path of a .pt or .safetensors "
            "file, the name of a shipped model, 'imagenet' or 'none'"
        )
    return _select(_read(path), expected, f"encoder.weights: {path}", encoder)


def _download(encoder: str) -> Mapping[str, Tensor]:
    source = f"timm's {encoder.removeprefix(_TIMM)}"
    try:
        if encoder.startswith(_TIMM):
            downloaded, _ = _from_timm(encoder, pretrained=True)
            return {f"features.{name}": one for name, one in downloaded.state_dict().items()}
        if encoder not in _TORCHVISION:
            raise SettingsError(
                f"encoder.weights is 'imagenet', and there are none of {encoder}: set it to a file "
                "with weights of that width, or to 'none' for random ones"
            )
        member = get_model_weights(encoder)["IMAGENET1K_V1"]
        source = member.url
        state: Mapping[str, Tensor] = member.get_state_dict(progress=False, check_hash=True)
        return state
    except (OSError, http.client.HTTPException, RuntimeError) as error:
        shipped = ", to the name of a shipped model" if encoder == DEFAULT_ENCODER else ""
        raise WeightsError(
            f"encoder.weights is 'imagenet', but {source} cannot be downloaded "
            f"({first_line(error)}); set encoder.weights to a file with weights of "
            f"{encoder}{shipped}, or to 'none' for random ones"
        ) from None


def _read(path: Path) -> Mapping[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = load_plain(path)
    except (OSError, *DAMAGED) as error:
        raise WeightsError(f"encoder.weights: {path} cannot be read: {first_line(error)}") from None
    if not isinstance(state, dict):
        raise WeightsError(f"encoder.weights: {path} holds no state dict")
    return state


def _select(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str, encoder: str
) -> dict[str, Tensor]:
    """The encoder's entries of `state`, checked against its names and shapes."""
    if not expected.keys() & state.keys():
        inside = {
            str(name).removeprefix("encoder."): tensor
            for name, tensor in state.items()
            if str(name).startswith("encoder.")  # as of a file in models/
        }
        # timm's own files have the names as they are inside of `_from_timm`'s module.
        state = inside or {f"features.model.{name}": tensor for name, tensor in state.items()}
    missing = [name for name in expected if name not in state]
    if missing:
        raise WeightsError(
            f"{source}: {len(missing)} of {len(expected)} entries are missing, the first is "
            f"{missing[0]}; expected the first blocks of {encoder} (network.encoder)"
        )
    for name, tensor in expected.items():
        # A network that was cast as a whole has batch norm's counts of batches as floats too.
        counts = () if tensor.is_floating_point() else (tensor.dtype,)
        try:
            check_tensor(name, state[name], tensor, (*counts, *FLOATS))
        except ValueError as error:
            raise WeightsError(f"{source}: {error}") from None
    return {name: state[name] for name in expected}
