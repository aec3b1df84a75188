"""How long a network takes for one image on this machine."""

from __future__ import annotations

import statistics
import time

import torch
from torch import nn

from nas_core.base.seeds import seeded
from nas_core.config import DEFAULT_ENCODER
from nas_core.models.compute import Compute
from nas_core.models.encoder import Encoder
from nas_core.models.segmenter import Segmenter
from nas_core.space.genotype import Genotype

NUM_WARM_UPS = 2
NUM_RUNS = 7


def measure_latency(
    genotype: Genotype,
    *,
    num_classes: int,
    agg_size: int,
    sep_repeats: int,
    input_size: tuple[int, int],
    compute: Compute,
    encoder: str = DEFAULT_ENCODER,
) -> float:
    """Median milliseconds for one image of `input_size` (height, width), resized logits included.

    In eval mode, on the device and in the precision of `compute`, after a warm-up. Weights do not
    matter, so they are random.
    """
    network = (genotype, num_classes, agg_size, sep_repeats, encoder)
    segmenter = seeded(0, lambda: Segmenter.build(*network))
    return _median_milliseconds(segmenter, input_size, compute)


def measure_encoder_latency(encoder: str, input_size: tuple[int, int], compute: Compute) -> float:
    """As `measure_latency`, of the encoder alone: no network is faster."""
    return _median_milliseconds(seeded(0, lambda: Encoder(encoder)), input_size, compute)


@torch.inference_mode()
def _median_milliseconds(
    network: nn.Module, input_size: tuple[int, int], compute: Compute
) -> float:
    network = compute.place(network).eval()
    image = torch.zeros(1, 3, *input_size, device=compute.device)
    image = image.to(memory_format=torch.channels_last)
    seconds = []
    for _ in range(NUM_WARM_UPS + NUM_RUNS):
        started = time.perf_counter()
        with compute.autocast():
            network(image)
        if compute.device.type == "cuda":
            torch.cuda.synchronize(compute.device)
        seconds.append(time.perf_counter() - started)
    return 1000 * statistics.median(seconds[NUM_WARM_UPS:])
