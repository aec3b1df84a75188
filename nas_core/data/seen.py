"""What an earlier check told of each image, so that only what has changed is read again."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError

from nas_core.base.code import PREPARING, code_digest
from nas_core.base.errors import DataError
from nas_core.base.files import digest_of, read_limited, write_bytes
from nas_core.data.fitting import Size
from nas_core.data.inspection import Inspected
from nas_core.data.listing import Colour, Listing, Sample

_MAX_BYTES = 2**28
_DESCRIPTIONS = (".yaml", ".yml", ".txt")


@dataclass(frozen=True)
class SampleLook:
    """What one sample told.

    Attributes:
        fingerprint: of its image, see `likeness`; None if it cannot be read or is too even.
        names: of what it is prepared as: itself, or its tiles.
        labelled: those that have a label at the proxy's size.
        num_void: tiles that are left out.
        palette: colours of labels, see `MaskReader.colours_of_labels`.
    """

    inspected: Inspected
    fingerprint: npt.NDArray[np.uint64] | None
    names: tuple[str, ...] = ()
    labelled: tuple[str, ...] = ()
    num_void: int = 0
    palette: dict[int, Colour] = field(default_factory=dict)


class _Entry(BaseModel):
    """A look at a sample without a problem, as it is kept."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: Size
    pixels: str = Field(pattern=r"^[0-9a-f]{64}$")
    label_counts: dict[int, int]
    fingerprint: tuple[int, ...] | None
    names: tuple[str, ...]
    labelled: tuple[str, ...]
    num_void: int
    palette: dict[int, Colour]


class _Entries(RootModel[dict[str, _Entry]]):
    pass


class Seen:
    """The looks of earlier checks by path, size and time of change of image and mask."""

    def __init__(self, path: Path, listing: Listing, *about: object) -> None:
        """Read what is there.

        Args:
            path: the file that they are kept in. If it cannot be read, there are none.
            about: what else decides a look, as JSON values.
        """
        self.path = path
        described = [
            (file.name, *_state(file))
            for file in sorted(listing.root.iterdir())
            if file.suffix.lower() in _DESCRIPTIONS and file.is_file()
        ]
        classes = (listing.classes, listing.palette, listing.ignore_index, listing.mixed_sizes)
        code = [code_digest(entry) for entry in (PREPARING, "nas_core.data.check")]
        self._about = digest_of(described, classes, listing.layout, code, about)
        try:
            self._old = _Entries.model_validate_json(read_limited(path, _MAX_BYTES)).root
        except (OSError, ValidationError):
            self._old = {}
        self._new: dict[str, _Entry] = {}

    @property
    def num_used(self) -> int:
        """How many looks of earlier checks this one took."""
        return len(self._new.keys() & self._old.keys())

    def key(self, sample: Sample) -> str:
        """Of the sample's files as they are: to be asked for before they are read."""
        files = ((str(path), *_state(path)) for path in (sample.image, sample.mask))
        return digest_of(self._about, sample.name, *files, length=32)

    def get(self, key: str, sample: Sample) -> SampleLook | None:
        """The look at a sample whose files have not changed since."""
        entry = self._old.get(key)
        if entry is None:
            return None
        self._new[key] = entry
        counts = np.zeros(256, np.int64)
        for label, count in entry.label_counts.items():
            counts[label] = count
        inspected = Inspected(sample, [], entry.size, bytes.fromhex(entry.pixels), counts)
        prints = entry.fingerprint
        fingerprint = None if prints is None else np.array(prints, np.uint64)
        return SampleLook(
            inspected, fingerprint, entry.names, entry.labelled, entry.num_void, entry.palette
        )

    def put(self, key: str, look: SampleLook) -> None:
        """Keep a look, unless there was a problem: that is looked at again."""
        inspected = look.inspected
        if inspected.problems or inspected.size is None:
            return
        prints = None if look.fingerprint is None else tuple(look.fingerprint.tolist())
        counts = inspected.label_counts
        self._new[key] = _Entry(
            size=inspected.size,
            pixels=inspected.pixel_digest.hex(),
            label_counts={int(label): int(counts[label]) for label in np.flatnonzero(counts)},
            fingerprint=prints,
            names=look.names,
            labelled=look.labelled,
            num_void=look.num_void,
            palette=look.palette,
        )

    def save(self) -> None:
        """Keep the looks of this check for the next one.

        Raises:
            DataError: the disk does not take them.
        """
        if self._new.keys() == self._old.keys():
            return
        try:
            write_bytes(self.path, _Entries(self._new).model_dump_json().encode())
        except OSError as error:
            raise DataError(f"{self.path} cannot be written: {error.strerror}") from None


def _state(path: Path) -> tuple[int, int]:
    """Bytes and time of change of a file; zero if it is not there."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns
