"""Encoder and decoder together: images to logits of the images' size."""

from __future__ import annotations

from torch import Tensor, nn

from nas_core.models.decoder import Decoder, resize
from nas_core.models.encoder import Encoder


class Segmenter(nn.Module):
    """A segmentation network."""

    def __init__(self, encoder: Encoder, decoder: Decoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (N, 3, H, W) to logits (N, num_classes, H, W), fp32 under autocast.

        The decoder's logits are resized in fp32: bf16 would round many pixels to equal logits.
        """
        logits = self.decoder(self.encoder(images))
        return resize(logits.to(self.decoder.classify.weight.dtype), images.shape[2:])
