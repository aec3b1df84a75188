"""Encoder and decoder together: images to logits of the images' size."""

from __future__ import annotations

from torch import Tensor, nn

from nas_core.base.errors import WeightsError
from nas_core.config import DEFAULT_ENCODER
from nas_core.models.decoder import Decoder, resize
from nas_core.models.encoder import Encoder
from nas_core.space.genotype import Genotype


class Segmenter(nn.Module):
    """A segmentation network.

    Attributes:
        source: what messages call it; the path of its file where it has one.
    """

    source = "the network"

    def __init__(self, encoder: Encoder, decoder: Decoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    @classmethod
    def build(
        cls,
        genotype: Genotype,
        num_classes: int,
        agg_size: int,
        sep_repeats: int,
        encoder: str = DEFAULT_ENCODER,
    ) -> Segmenter:
        """An architecture's network, with the initial weights of the current generator.

        Args:
            encoder: its name, see `Encoder`; the others are as in `Decoder`.
        """
        first = Encoder(encoder)
        return cls(first, Decoder(genotype, num_classes, agg_size, sep_repeats, first.tap_channels))

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (N, 3, H, W) to logits (N, num_classes, H, W), fp32 under autocast.

        The decoder's logits are resized in fp32: bf16 would round many pixels to equal logits.
        """
        logits = self.decoder(self.encoder(images))
        return resize(logits.to(self.decoder.classify.weight.dtype), images.shape[2:])


def most_likely(logits: Tensor, source: str = Segmenter.source) -> Tensor:
    """The most likely class of each pixel, int64 (N, H, W), of logits (N, C, H, W).

    Args:
        source: what gave the logits, see `Segmenter`.

    Raises:
        WeightsError: a logit is not finite, so that the classes would mean nothing.
    """
    # A sum costs a tenth of looking at each logit. That of finite ones may overflow.
    if not logits.sum().isfinite() and not logits.isfinite().all():
        raise WeightsError(f"{source} gives logits that are not finite")
    return logits.argmax(1)
