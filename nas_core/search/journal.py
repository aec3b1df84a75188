"""The truth of a search on disk: its journal, and the state of its strategy.

A journal is a file of JSON lines: a header, then one record for each proposal, in order, and after
those that they concern one confirmation for each further training of a candidate. Lines are only
ever added, and each is on the disk before `append` returns. The last entry of a line is a checksum
of what stands before it; older journals have lines without one.
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from nas_core.base.closing import Closing
from nas_core.base.errors import GenotypeError, RunError
from nas_core.base.files import append_line, write_bytes
from nas_core.base.locks import RunLock
from nas_core.base.problems import at_its_key
from nas_core.search.consistency import History

# torch takes seconds to import, and a journal is read without it: the two functions that need it
# import it themselves.

log = logging.getLogger(__name__)

FORMAT = 1
STATE_FORMAT = "nas-seg search state 1"

Status = Literal["finished", "stopped early", "failed", "repeat"]
# Within these, tables of 64-bit integers, sums and MLflow take what they are given.
Count = Annotated[int, Field(ge=0, lt=2**63)]
Value = Annotated[float, Field(ge=-1e100, le=1e100)]
Seconds = Annotated[float, Field(ge=0, le=1e9)]
# It becomes the name of a folder.
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,100}$")]

_ADVICE = "restore the journal from a copy, or remove its folder to search anew"
_CONFIRMATION = b'{"confirms":'
_CHECKSUM = re.compile(rb'(\{.*),"checksum":"([0-9a-f]{8})"\}\s*')


class Line(BaseModel):
    # NaN has no JSON form: a score that is not finite is a failure, with its reason.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Header(Line):
    """What the search is: its settings, and all that decides what it finds."""

    format: int
    settings: dict[str, JsonValue]
    identity: dict[str, JsonValue]


class Record(Line):
    """What became of one proposal."""

    index: Count
    """Number of the proposal in the search, from 0."""
    round: Count
    candidate: Annotated[int, Field(ge=1, lt=2**63)] | None
    """Number among the trained ones, from 1; None for a repeat, which was not trained again."""
    id: Id
    genotype: dict[str, list[list[Count]]]
    """In the paper's encoding."""
    status: Status
    reward: Value | None = None
    """What the strategy learns from: the quality, and the cost if `search.reward` includes it.
    None if failed, or a repeat of a failed one."""
    scores: tuple[Value, ...] = ()
    """The quality at each validation, as far as it came."""
    metrics: dict[str, Value] = {}
    num_parameters: Annotated[Count, Field(ge=1)]
    macs: Annotated[Count, Field(ge=1)]
    latency_ms: Annotated[float, Field(gt=0, le=1e100)] | None = None
    """For one image, by `search.latency`; None if the search does not depend on it, see
    `search.latencies`."""
    seed: Count
    seconds: dict[str, Seconds] = {}
    """Time of each part of the training."""
    reason: str = ""
    """Why it failed."""

    @model_validator(mode="after")
    def is_consistent(self) -> Self:
        if (self.candidate is None) != (self.status == "repeat"):
            raise ValueError("candidate: every record but a repeat has a number")
        if self.is_scored and self.reward is None:
            raise ValueError(f"reward: missing, but the status is {self.status!r}")
        if self.status == "failed" and (self.reward is not None or not self.reason):
            raise ValueError("failed: there must be a reason and no reward")
        return self

    @property
    def quality(self) -> float | None:
        """The score on meta-val without any cost; None if there is none."""
        return self.scores[-1] if self.scores else None

    @property
    def is_scored(self) -> bool:
        """Whether the training of this record gave a reward."""
        return self.status in ("finished", "stopped early")


class Confirmation(Line):
    """What became of a further training of a candidate, with another seed and to its end."""

    confirms: Id
    """The candidate."""
    run: Annotated[int, Field(ge=1, lt=2**63)]
    """Number of the seed, from 1: the candidate's own training is before it."""
    status: Literal["finished", "failed"]
    reward: Value | None = None
    """None if failed."""
    scores: tuple[Value, ...] = ()
    """As in a `Record`; so are those that follow."""
    metrics: dict[str, Value] = {}
    seed: Count
    seconds: dict[str, Seconds] = {}
    reason: str = ""

    @model_validator(mode="after")
    def is_consistent(self) -> Self:
        if (self.status == "failed") != (self.reward is None) or (
            (self.status == "failed") != bool(self.reason)
        ):
            raise ValueError("reward: one that failed has a reason and none, any other has one")
        if self.status == "finished" and not self.scores:
            raise ValueError("scores: missing, but the status is 'finished'")
        return self


class Journal(Closing):
    """The records of a search, in order. `create` and `open` hold the run's folder; `read` doesn't.

    Use as a context manager, or `close`.

    Attributes:
        records: of the proposals.
        confirmations: of further trainings of candidates.
    """

    def __init__(self, path: Path, lock: RunLock | None) -> None:
        """Raises RunError: the file is missing or malformed. See `create`, `open` and `read`."""
        self.path = path
        self._lock = lock
        self._candidates: list[Record] = []
        self._num_seen = 0
        content = _parse(path)
        self.header, self._size, half_written = content.header, content.size, content.half_written
        self.records, self.confirmations = content.records, content.confirmations
        self._history = content.history
        if half_written and lock:
            log.warning(
                "%s: the last line is half written (%d bytes), as after a crash; it is dropped",
                path,
                half_written,
            )

    @classmethod
    def create(cls, path: Path, header: Header) -> Journal:
        """Begin a journal.

        Raises:
            RunError: there is one already, the folder is in use, or the disk does not take it.
        """
        lock = RunLock(path.parent)
        try:
            if path.exists():
                raise RunError(f"{path} exists already: open it to go on with its search")
            write_bytes(path, _line(header))
            return cls(path, lock)
        except BaseException:
            lock.close()
            raise

    @classmethod
    def open(cls, path: Path) -> Journal:
        """Go on with a journal. A half-written last line, left by a crash, is dropped.

        Raises:
            RunError: the file is missing or malformed, or the folder is in use.
        """
        _check_exists(path)
        lock = RunLock(path.parent)
        try:
            return cls(path, lock)
        except BaseException:
            lock.close()
            raise

    @classmethod
    def read(cls, path: Path) -> Journal:
        """The journal as it is now, of a search that may be running.

        Raises:
            RunError: the file is missing or malformed.
        """
        _check_exists(path)
        return cls(path, lock=None)

    @property
    def scored(self) -> dict[str, Record]:
        """The first record with a reward for each id that was trained."""
        first: dict[str, Record] = {}
        for record in self.records:
            if record.is_scored:
                first.setdefault(record.id, record)
        return first

    @property
    def candidates(self) -> list[Record]:
        """The records that were trained (finished, stopped early, failed): all but repeats.

        Not a copy: a search asks for them all the time.
        """
        new = self.records[self._num_seen :]
        self._candidates += [record for record in new if record.candidate is not None]
        self._num_seen = len(self.records)
        return self._candidates

    def append(self, new: Record | Confirmation) -> None:
        """Add a record or a confirmation; it is on the disk when this returns.

        Raises:
            RunError: it cannot be the next one, see `consistency`, or the disk does not take it.
                Then the journal is as before.
        """
        if self._lock is None:
            raise ValueError(f"{self.path} is not open for writing")
        if isinstance(new, Confirmation):
            _check(self._history.check_confirmation, new, f"{self.path}")
            self._size = append_line(self.path, self._size, _line(new))
            self._history.add_confirmation(new)
            self.confirmations.append(new)
        else:
            _check(self._history.check_record, new, f"{self.path}")
            self._size = append_line(self.path, self._size, _line(new))
            self._history.add_record(new)
            self.records.append(new)

    def close(self) -> None:
        if self._lock:
            self._lock.close()
            self._lock = None


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values so that a crash leaves the old file or the new one.

    Raises:
        RunError: the disk does not take it.
    """
    import torch

    content = io.BytesIO()
    torch.save({"format": STATE_FORMAT, "state": state}, content)
    write_bytes(path, content.getvalue())


def load_state(path: Path) -> dict[str, Any]:
    """Read what `save_state` wrote; nothing in the file is executed.

    Raises:
        RunError: the file is missing, truncated or damaged, or not of this kind.
    """
    from nas_core.models.state import load_plain

    advice = "restore it from a copy, or remove the run's folder to begin again"
    try:
        content = load_plain(path)
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise RunError(f"{path} is damaged, or no state of a search ({error}): {advice}") from None
    if (
        not isinstance(content, dict)
        or content.get("format") != STATE_FORMAT
        or not isinstance(content.get("state"), dict)
    ):
        raise RunError(f"{path} is no state of a search: {advice}")
    state: dict[str, Any] = content["state"]
    return state


Parsed = TypeVar("Parsed", bound=Line)


def _check_exists(path: Path) -> None:
    if not path.is_file():
        raise RunError(f"{path} does not exist: no search has begun there")


@dataclass(frozen=True)
class _Content:
    header: Header
    records: list[Record]
    confirmations: list[Confirmation]
    history: History
    size: int
    """Of their lines in bytes."""
    half_written: int
    """Bytes that follow these."""


def _parse(path: Path) -> _Content:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from None
    # A line counts once its line break is there. No valid line holds one elsewhere.
    *lines, rest = content.split(b"\n")
    if not lines:
        raise RunError(f"{path}, line 1: the header is missing: this is no journal of a search")
    header, has_checksum = _parse_line(Header, lines[0], f"{path}, line 1")
    if header.format != FORMAT:
        raise RunError(
            f"{path}, line 1: a journal of format {header.format}, and this version reads format "
            f"{FORMAT}: go on with the version that wrote it"
        )
    records: list[Record] = []
    confirmations: list[Confirmation] = []
    history = History(header)
    for number, line in enumerate(lines[1:], start=2):
        where = f"{path}, line {number}"
        if line.startswith(_CONFIRMATION):
            confirmation, is_checked = _parse_line(Confirmation, line, where)
            _check(history.check_confirmation, confirmation, where)
            history.add_confirmation(confirmation)
            confirmations.append(confirmation)
        else:
            record, is_checked = _parse_line(Record, line, where)
            _check(history.check_record, record, where)
            history.add_record(record)
            records.append(record)
        if has_checksum and not is_checked:
            raise RunError(_changed(where, "has lost its checksum"))
        has_checksum = is_checked
    return _Content(header, records, confirmations, history, len(content) - len(rest), len(rest))


def _line(content: Line) -> bytes:
    body = content.model_dump_json().encode()[:-1]
    return body + f',"checksum":"{_checksum(body)}"}}\n'.encode()


def _checksum(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:8]


def _parse_line(model: type[Parsed], line: bytes, where: str) -> tuple[Parsed, bool]:
    """What a line says, and whether it has a checksum."""
    found = _CHECKSUM.fullmatch(line)
    try:
        parsed = model.model_validate_json(found[1] + b"}" if found else line, strict=True)
    except ValidationError as error:
        what = at_its_key(error.errors()[0])
        raise RunError(
            f"{where}: not a {model.__name__.lower()} of a journal: {what}; {_ADVICE}"
        ) from None
    if found and _checksum(found[1]) != found[2].decode():
        raise RunError(_changed(where, "does not have the checksum that it was written with"))
    return parsed, found is not None


def _changed(where: str, how: str) -> str:
    return f"{where} {how}: it was changed by hand or is damaged; {_ADVICE}"


def _check(check: Callable[[Parsed], None], new: Parsed, where: str) -> None:
    try:
        check(new)
    except (ValueError, GenotypeError) as error:
        raise RunError(f"{where}: {error}; {_ADVICE}") from None
