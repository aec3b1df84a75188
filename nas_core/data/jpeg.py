"""JPEGs that lack pixels though they end as they should, of which libjpeg only warns.

A file that was cut and got an end marker is grey from the cut on, and Pillow doesn't pass on the
warning. So libjpeg gets each scan (https://www.w3.org/Graphics/JPEG/itu-t81.pdf, B.1.1.2) without
the marker behind it: at the end of a whole scan it then looks for a marker, within any other it
waits for more.

What is not told: a scan that lacks no more than its last blocks (two, or 64 of one bit each), a
progressive file that was cut between two scans, and arithmetic coding, which libjpeg reads at once.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image
from PIL import _imaging as core
from PIL.ImageFile import ImageFile, PyDecoder

START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9

# Markers that begin a segment; in compressed data FF is followed by 0 or a restart marker.
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])")
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_RESTART_INTERVAL = 0xDD
_BASELINE, _PROGRESSIVE = (0xC0, 0xC1), 0xC2
_OTHER_FRAMES = {*range(0xC3, 0xD0)} - {0xC4, 0xC8, 0xCC}
_NAME = "whole_jpeg"
# In a scan eight bits 1, which begin no code; between scans nothing, and skipped.
_ONES = b"\xff\0"
# libjpeg has up to so many bytes of a scan in advance.
_IN_ADVANCE = 8
_NUM_PROBES = _IN_ADVANCE + 2


def segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, beginning and end of each segment of a JPEG, as libjpeg walks from one to the next.

    The end of the image is the last, where there is one.
    """
    place = 2
    while found := _MARKER.search(content, place):
        marker, place = found[1][0], found.end()
        if marker == END_OF_IMAGE:
            yield marker, found.start(), place
            return
        place += max(2, int.from_bytes(content[place : place + 2], "big"))
        yield marker, found.start(), place


def refuse_partial(picture: ImageFile) -> None:
    """Have a JPEG raise an OSError when its pixels are loaded, if it has a part of them only.

    Args:
        picture: opened from a `BytesIO`, not loaded yet.
    """
    picture.tile = [tile._replace(codec_name=_NAME) for tile in picture.tile]


@dataclass(frozen=True)
class _Frame:
    """What the number of units of a scan follows from (T.81, A.2)."""

    is_baseline: bool
    height: int
    width: int
    sampling: dict[int, tuple[int, int]]
    """Of each component, across and down."""

    @classmethod
    def read(cls, marker: int, segment: bytes) -> _Frame:
        height, width, num = struct.unpack_from(">5xHHB", segment)
        components = [segment[at : at + 2] for at in range(10, 10 + 3 * num, 3)]
        sampling = {one: (max(1, size >> 4), max(1, size & 15)) for one, size in components}
        return cls(marker in _BASELINE, height, width, sampling)

    def num_units(self, components: bytes) -> int:
        """Of a scan: blocks of one component, or as many of each as belong together."""
        across, down = (max(one[axis] for one in self.sampling.values()) for axis in (0, 1))
        width, height = self.width, self.height
        if len(components) == 1:
            own = self.sampling.get(components[0], (1, 1))
            width, height = -(-width * own[0] // across), -(-height * own[1] // down)
            across = down = 1
        return -(-width // (8 * across)) * -(-height // (8 * down))


@dataclass(frozen=True)
class _Scan:
    end: int
    """Where the marker behind it stands."""
    is_all: bool
    """It has all that the image has, and libjpeg gives out rows while it reads it."""
    lacks_intervals: bool
    """It has too few restart markers: at one of these libjpeg looks for a marker, too."""


def _scans(content: bytes) -> list[_Scan]:
    """The scans that have a marker behind them; none of a file in another coding."""
    found: list[_Scan] = []
    frame, interval, components, begin = None, 0, b"", 0
    for marker, start, end in segments(content):
        if frame and begin:
            expected = -(-frame.num_units(components) // interval) - 1 if interval else 0
            num_restarts = len(_RESTART.findall(content, begin, start)) if interval else 0
            is_all = frame.is_baseline and len(components) == len(frame.sampling)
            found.append(_Scan(start, is_all, num_restarts < expected))
        begin = end if marker == START_OF_SCAN else 0
        if marker in (*_BASELINE, _PROGRESSIVE):
            frame = _Frame.read(marker, content[start:end])
        elif marker in _OTHER_FRAMES:
            return []
        elif marker == _RESTART_INTERVAL:
            interval = int.from_bytes(content[start + 4 : end], "big")
        elif marker == START_OF_SCAN:
            components = content[start + 5 : start + 5 + 2 * content[start + 4] : 2]
    return found


class _WholeJpeg(PyDecoder):
    """Pillow's decoder of JPEGs, which is given one scan after the other."""

    _pulls_fd = True

    def decode(self, buffer: Image.DecoderInput) -> tuple[int, int]:
        content: bytes = self.fd.getvalue()  # type: ignore[union-attr]  # see `refuse_partial`
        inner = core.jpeg_decoder(self.mode, *self.args)
        inner.setimage(self.im, self.state.extents())
        place = 0
        for scan in _scans(content):
            taken, failure = _feed(inner, content[place : scan.end], scan)
            if taken < 0:  # at the end, or failed
                return taken, failure
            place = scan.end
        taken, failure = inner.decode(content[place:])
        if taken >= 0:
            raise OSError("truncated")
        return taken, failure


def _feed(inner: core.ImagingDecoder, content: bytes, scan: _Scan) -> tuple[int, int]:
    """Give the decoder a scan and what stands before it; what it says, see `PyDecoder.decode`.

    Raises:
        OSError: it waits for more of the scan.
    """
    waiting = content
    for more in (b"", _ONES * _IN_ADVANCE, *[_ONES] * _NUM_PROBES):
        waiting += more
        taken, failure = inner.decode(waiting)
        if taken < 0:
            return taken, failure
        is_probe = more == _ONES
        if is_probe and (taken < len(waiting) or scan.is_all or scan.lacks_intervals):
            raise OSError("its pixels end before the image does")
        waiting = waiting[taken:]
    return taken, failure


Image.register_decoder(_NAME, _WholeJpeg)
