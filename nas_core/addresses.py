"""Addresses of servers without the secrets that they may hold."""

from __future__ import annotations

import re
from urllib.parse import unquote

# What MLflow, Prefect and the drivers of databases take for a secret in a query.
_SECRET = re.compile(
    r"([?&;][^=&;#]*(?:pass|pwd|secret|token|api_?key|odbc_connect)[^=&;#]*=)([^&;#]*)", re.I
)


def redacted(uri: str) -> str:
    """`uri` without user name and password, and with `...` for secrets in its query."""
    text = without_credentials(uri, uri)
    return text if len(text) <= 300 else f"{text[:300]}..."


def without_credentials(text: str, uri: str) -> str:
    """`text` without the secrets that `uri` holds."""
    credentials = _credentials(uri)
    if credentials:
        text = text.replace(credentials, "")
        # Drivers show a part of it, such as what they take for a port.
        secret = credentials[:-1].partition(":")[2]
        for form in (secret, unquote(secret), secret.partition("/")[0]):
            text = text.replace(form, "...") if len(form) > 2 else text
    for _, secret in _SECRET.findall(uri):
        text = text.replace(secret, "...") if secret else text
    return text


def has_credentials(uri: str) -> bool:
    """Whether `uri` holds a user name, a password or another secret."""
    return bool(_credentials(uri)) or bool(_SECRET.search(uri))


def _credentials(uri: str) -> str:
    """`user:password@`, or nothing.

    A password may hold an @ and, though it should not, a slash: then no program reads the address
    as it was meant, and complains of it.
    """
    scheme, _, rest = uri.partition("://")
    if scheme.startswith(("sqlite", "file")):
        return ""
    authority = rest.partition("/")[0]
    port = authority.rpartition(":")[2]
    if "@" not in authority and (port == authority or not port or port.isdecimal()):
        return ""  # an @, if there is one, belongs to the path
    credentials, at, _ = rest.rpartition("@")
    return credentials + at
