"""Times as people read them."""

from __future__ import annotations

from datetime import datetime


def duration(seconds: float) -> str:
    """As 45 s, 12 min, 3 h 05 min or 2 d 4 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02} min"
    return "{} d {} h".format(*divmod(hours, 24))


def moment(value: float | datetime) -> str:
    """A time of this machine's clock, to the minute."""
    if not isinstance(value, datetime):
        value = datetime.fromtimestamp(value).astimezone()
    return value.strftime("%Y-%m-%d %H:%M %Z")
