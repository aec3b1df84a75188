"""The first seven blocks of MobileNetV2, and their pre-trained weights."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import MobileNet_V2_Weights, MobileNetV2

from nas_core.base.errors import WeightsError, first_line
from nas_core.base.files import expanded
from nas_core.base.paths import shipped_models
from nas_core.models.depthwise import DepthwiseConv2d
from nas_core.models.state import DAMAGED, FLOATS, check_tensor, load_plain

# Of images scaled to [0, 1], as torchvision's ImageNet weights expect.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

NUM_BLOCKS = 7
TAP_BLOCKS = (3, 6)
# MobileNetV2's table 2 (arXiv 1801.04381) as far as block 6: expansion, channels, blocks, stride.
BLOCK_TABLE = [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 3, 2]]


class Encoder(nn.Module):
    """torchvision's MobileNetV2, `features[0]` to `features[6]`, with its parameter names."""

    def __init__(self) -> None:
        super().__init__()
        whole = MobileNetV2(num_classes=1, inverted_residual_setting=BLOCK_TABLE)
        self.features = whole.features[:NUM_BLOCKS]
        _use_fast_depthwise(self.features)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images (N, 3, H, W) to taps (N, 24, H/4, W/4) and (N, 32, H/8, W/8).

        Sizes that do not divide are rounded up.
        """
        taps = []
        features = images
        for index, block in enumerate(self.features):
            features = block(features)
            if index in TAP_BLOCKS:
                taps.append(features)
        first, second = taps
        return first, second


def _use_fast_depthwise(blocks: nn.Module) -> None:
    for parent in list(blocks.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Conv2d) and child.groups > 1:
                fast = DepthwiseConv2d(child.in_channels, child.kernel_size[0], child.stride[0])
                fast.weight = child.weight
                setattr(parent, name, fast)


def load_encoder_weights(weights: str, root: Path) -> dict[str, Tensor] | None:
    """The state dict of an `Encoder`, or None for random weights.

    Args:
        weights: imagenet (torchvision's, downloaded once), none, the name of a shipped model, or
            the path of a .pt or .safetensors file. Further blocks of MobileNetV2 in it are left
            out, and of a network of this program all but its encoder.
        root: the project's folder, where a relative path starts.

    Raises:
        WeightsError: the download fails, or the file is missing, unreadable or of another network,
            or its weights are no dense tensors of a floating-point type.
    """
    if weights == "none":
        return None
    if weights == "imagenet":
        return _select(_download(), "torchvision's weights")
    path = shipped_models(root).get(weights) or root / expanded(weights)
    if not path.is_file():
        raise WeightsError(
            f"encoder.weights: {path} is not a file; give the path of a .pt or .safetensors "
            "file, the name of a shipped model, 'imagenet' or 'none'"
        )
    return _select(_read(path), f"encoder.weights: {path}")


def _download() -> Mapping[str, Tensor]:
    source = MobileNet_V2_Weights.IMAGENET1K_V1
    try:
        state: Mapping[str, Tensor] = source.get_state_dict(progress=False, check_hash=True)
        return state
    except (OSError, http.client.HTTPException, RuntimeError) as error:
        raise WeightsError(
            f"encoder.weights is 'imagenet', but {source.url} cannot be downloaded ({error}); "
            "set encoder.weights to a file with MobileNetV2's weights, or to 'none' for random ones"
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


def _select(state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The encoder's entries of `state`, checked against its names and shapes."""
    with torch.device("meta"):
        expected = Encoder().state_dict()
    if not expected.keys() & state.keys():  # as of a file in models/
        begins = "encoder."
        state = {
            str(name).removeprefix(begins): tensor
            for name, tensor in state.items()
            if str(name).startswith(begins)
        }
    missing = [name for name in expected if name not in state]
    if missing:
        raise WeightsError(
            f"{source}: {len(missing)} of {len(expected)} entries are missing, the first is "
            f"{missing[0]}; expected MobileNetV2's features.0 to features.{NUM_BLOCKS - 1}"
        )
    for name, tensor in expected.items():
        # A network that was cast as a whole has batch norm's counts of batches as floats too.
        counts = () if tensor.is_floating_point() else (tensor.dtype,)
        try:
            check_tensor(name, state[name], tensor, (*counts, *FLOATS))
        except ValueError as error:
            raise WeightsError(f"{source}: {error}") from None
    return {name: state[name] for name in expected}
