"""Heads on the decoder's layers, for training only (deep supervision, Lee et al., 2015)."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from nas_core.models.decoder import DecoderLayer, resize
from nas_core.models.segmenter import Segmenter


class WithAuxiliaryHeads(nn.Module):
    """A segmenter, and a 1x1 convolution to logits on what each layer of its decoder puts out.

    Args:
        num_classes: channels of the logits.
    """

    def __init__(self, segmenter: Segmenter, num_classes: int) -> None:
        super().__init__()
        self.segmenter = segmenter
        self.heads = nn.ModuleList(
            nn.Conv2d(cast(DecoderLayer, layer).out_channels, num_classes, 1)
            for layer in segmenter.decoder.layers
        )

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images (N, 3, H, W) to the segmenter's logits and those of each layer, at its size."""
        decoder = self.segmenter.decoder
        pool = decoder.feature_maps(self.segmenter.encoder(images))
        logits = resize(decoder.head(pool).to(decoder.classify.weight.dtype), images.shape[2:])
        layers = pool[-len(self.heads) :]
        return logits, *(
            head(functional.relu(features))
            for head, features in zip(self.heads, layers, strict=True)
        )
