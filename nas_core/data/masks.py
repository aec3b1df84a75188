"""From the values or colours of a mask to class numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from nas_core.base.errors import DataError
from nas_core.data.description import DESCRIPTION, Description
from nas_core.data.images import listed, read_labels
from nas_core.data.labels import IGNORED
from nas_core.data.listing import Colour

_UNKNOWN = -1
_NEAR = 32
"""The most that a channel of two colours may differ for them to be near."""
_MAX_STRAYS = 2**10
_MANY_STRAYS = 8
"""Of so many colours a quarter near known ones will do: others lie between two, along edges."""


@dataclass(frozen=True)
class MaskReader:
    """Reads masks as `description` says, which stands in the file `source`: `Listing.read_mask`."""

    root: Path
    description: Description
    source: str = DESCRIPTION

    def __call__(self, path: Path) -> npt.NDArray[np.uint8]:
        values, palette = read_labels(path, self.root)
        if values.ndim == 3:
            if self._is_grey(values):
                return self._of_labels(path, values[..., 0])
            return self._of_colours(path, values)
        if palette is not None:
            used = np.unique(values)
            if self._are_declared(used, palette):
                numbers = np.zeros(256, np.uint8)
                numbers[used] = self._of_colours(path, palette[used])
                return numbers[values]
            self._check_palette(path, values, palette)
        return self._of_labels(path, values)

    def colours_of_labels(self, path: Path) -> dict[int, Colour]:
        """What a palette shows the labels in the mask in, of classes without a colour of their own.

        Empty for a mask without a palette. The mask is one that can be read.
        """
        without = {
            label
            for label, colour in zip(self.description.labels, self._colours(), strict=True)
            if colour is None
        }
        with Image.open(path) as picture:
            if not without or picture.mode != "P":
                return {}
        values, palette = read_labels(path, self.root)
        if palette is None:
            return {}
        used = without & {*np.unique(values).tolist()} & {*range(len(palette))}
        return {label: colour_of(int(code_of(palette[label]))) for label in sorted(used)}

    def _are_declared(self, used: npt.NDArray[np.uint8], palette: npt.NDArray[np.uint8]) -> bool:
        """Whether the colours of these indices say it all: then their order is of no account."""
        colours = self._colours()
        declared = {*colours, *self.description.ignore_colours}
        if None in declared or used[-1] >= len(palette):
            return False
        return all(tuple(colour) in declared for colour in palette[used].tolist())

    def _is_grey(self, values: npt.NDArray[np.uint8]) -> bool:
        """Whether it holds labels three times over, as programs save grey as RGB."""
        if self.description.ignore_colours or any(c is not None for c in self._colours()):
            return False
        return bool((values == values[..., :1]).all())

    def _of_labels(self, path: Path, values: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        table = np.full(256, _UNKNOWN, np.int16)
        table[list(self.description.ignore_labels)] = IGNORED
        table[self.description.labels] = range(len(self.description.classes))
        mask = table[values]
        strays = np.unique(values[mask == _UNKNOWN])
        if strays.size:
            raise DataError(f"{self._name(path)}: {listed(strays)} not in {self.source}")
        return mask.astype(np.uint8)

    def _of_colours(self, path: Path, values: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        known = {c: number for number, c in enumerate(self._colours()) if c is not None}
        known |= dict.fromkeys(self.description.ignore_colours, IGNORED)
        if not known:
            raise DataError(
                f"{self._name(path)}: an RGB mask, but the classes of {self.source} have no colours"
            )
        codes, numbers = code_of(np.array([*known], np.uint8)), np.array([*known.values()])
        order = np.argsort(codes)
        pixels = code_of(values)
        places = order[np.searchsorted(codes[order], pixels).clip(max=len(codes) - 1)]
        strays = np.unique(pixels[codes[places] != pixels])
        if strays.size:
            raise DataError(f"{self._name(path)}: {self._strays(strays, [*known])}")
        labels: npt.NDArray[np.uint8] = numbers[places].astype(np.uint8)
        return labels

    def _strays(self, strays: npt.NDArray[np.int64], known: list[Colour]) -> str:
        """What to say of colours that are none of those known."""
        colours = [colour_of(int(code)) for code in strays[:_MAX_STRAYS]]
        more = f" and {strays.size - 1} more" if strays.size > 1 else ""
        likely = [one for colour in colours if (one := near(colour, known)) is not None]
        message = f"colour {list(colours[0])}{more} not in {self.source}"
        if len(likely) == len(colours):
            message += f", near {list(likely[0])}"
        elif len(colours) >= _MANY_STRAYS and 4 * len(likely) >= len(colours):
            message += ", many near known ones"
        else:
            return message
        return f"{message}: as JPEG and smoothing leave them at edges; save it anew from its source"

    def _check_palette(
        self, path: Path, values: npt.NDArray[np.uint8], palette: npt.NDArray[np.uint8]
    ) -> None:
        """A program that saved colours as a palette may have numbered them as it liked."""
        for label, colour in zip(self.description.labels, self._colours(), strict=True):
            if colour is None or label >= len(palette) or not (values == label).any():
                continue
            found = tuple(palette[label].tolist())
            if found != colour:
                self._check_colours(path, palette[np.unique(values)])
                raise DataError(
                    f"{self._name(path)}: palette colour {list(found)} of label {label}, which has "
                    f"{list(colour)} in {self.source}: leave the colours out there if the label is "
                    "right, or save the mask as RGB"
                )

    def _check_colours(self, path: Path, used: npt.NDArray[np.uint8]) -> None:
        """Where most colours of a palette are declared, it is those that count: name the others."""
        known = [c for c in (*self._colours(), *self.description.ignore_colours) if c is not None]
        strays = [colour for colour in used.tolist() if tuple(colour) not in known]
        if None not in self._colours() and 2 * len(strays) < len(used):
            codes = np.unique(code_of(np.array(strays, np.uint8)))
            raise DataError(f"{self._name(path)}: {self._strays(codes, known)}")

    def _colours(self) -> list[Colour | None]:
        return [entry.colour for entry in self.description.classes]

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def code_of(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Colours (..., 3) as one number each (...)."""
    codes: npt.NDArray[np.int64] = pixels.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
    return codes


def colour_of(code: int) -> Colour:
    """The colour that `code_of` made a number of."""
    return code >> 16, code >> 8 & 255, code & 255


def near(colour: Colour, others: Iterable[Colour]) -> Colour | None:
    """The first of `others` that is near a colour."""
    for other in others:
        if max(abs(a - b) for a, b in zip(colour, other, strict=True)) <= _NEAR:
            return other
    return None
