"""Addresses of servers: without the secrets that they may hold, and without proxies."""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from urllib.parse import quote, unquote

LOOPBACK = ("127.0.0.1", "localhost", "::1", "0.0.0.0")

# What MLflow, Prefect and the drivers of databases take for a secret in a query.
_SECRET = re.compile(
    r"([?&;#][^=&;#]*"
    r"(?:pass|pwd|secret|token|credential|signature|api_?key|access_?key|odbc_connect)"
    r"[^=&;#]*=)([^&;#]*)",
    re.I,
)
# Schemes before a host or a path. After another may come anything, as a token for Databricks.
_KNOWN = {"http", "https", "postgres", "postgresql", "mysql", "mariadb", "mssql", "oracle"}
_PATHS = {"sqlite", "file"}
_SCHEME = re.compile(r"\s*(?:([a-z][a-z0-9.-]*)(?:\+\w*)?:(?=/))?/*", re.I)
_ENCODED = re.compile("%[0-9A-Fa-f]{2}")
_PLACE = re.compile(r"(?:\[[0-9a-f:.]*\]|[^\s:@%/?#\[\]]*)(?::\d*)?(?:[/?#].*)?", re.I | re.S)


def bypass_proxies(environment: MutableMapping[str, str]) -> None:
    """Have programs with this environment ask the servers of their own machine without a proxy."""
    names = [name for name in ("no_proxy", "NO_PROXY") if name in environment]
    for name in names or ("no_proxy", "NO_PROXY"):
        hosts = [host.strip() for host in environment.get(name, "").split(",") if host.strip()]
        if hosts != ["*"]:  # no proxy at all; only where it stands alone
            environment[name] = ",".join(dict.fromkeys([*hosts, *LOOPBACK]))


def encoded_part(path: str) -> str | None:
    """What programs that take a path for an address would read as another character, as %2F."""
    found = _ENCODED.search(path)
    return found[0] if found else None


def redacted(uri: str) -> str:
    """`uri` without user name and password, and with `...` for what else may be secret."""
    text = _SECRET.sub(r"\1...", _split(uri)[0])
    return text if len(text) <= 300 else f"{text[:300]}..."


def without_credentials(text: str, uri: str) -> str:
    """`text` without the secrets that `uri` holds."""
    shown, hidden = _split(uri)
    secrets = [secret for _, secret in _SECRET.findall(uri)]
    if hidden:
        text = text.replace(uri, shown)
        secret = hidden
        if hidden.endswith("@"):
            text = text.replace(hidden, "")
            user, _, password = hidden.removesuffix("@").partition(":")
            secret = password or user
        # Drivers show a part of it, such as what they take for a port.
        secrets += [secret, *re.split("[:/@?#]", unquote(secret))]
    forms = {form for secret in secrets for form in _forms(secret) if len(form) > 2}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, "...")
    return text


def has_credentials(uri: str) -> bool:
    """Whether `uri` holds a user name, a password or another secret."""
    hidden = _split(uri)[1]
    return "@" in unquote(hidden) or bool(_SECRET.search(uri)) or _scheme(uri) == "databricks"


def _split(uri: str) -> tuple[str, str]:
    """What may be shown, and what was left out of it: `user:password@`, or all after the scheme.

    A password may hold an @ and, though it should not, a slash: then no program reads the address
    as it was meant, and complains of it.
    """
    beginning = _SCHEME.match(uri)
    assert beginning is not None, "it matches nothing, too"
    scheme, start, rest = _scheme(uri), beginning[0], uri[beginning.end() :]
    if scheme in _PATHS and start.endswith("///"):
        return uri, ""
    if rest and scheme not in {"", *_KNOWN, *_PATHS}:
        return f"{start}...", rest
    authority = re.split("[/?#]", rest)[0]
    port = authority.rpartition(":")[2] if ":" in authority else ""
    credentials, at, place = "", "", rest
    if "@" in authority or (port and not port.isdecimal() and not authority.startswith("[")):
        credentials, at, place = rest.rpartition("@")
    # A slash in a password: what looks like host and port may be its user and its beginning.
    is_doubtful = port and not at and "@" in rest
    if _PLACE.fullmatch(place) and not is_doubtful:
        return start + place, credentials + at
    return f"{start}...", rest


def _scheme(uri: str) -> str:
    """In lower case and without a driver; empty where there is none."""
    found = _SCHEME.match(uri)
    return (found[1] or "").lower() if found else ""


def _forms(secret: str) -> set[str]:
    """As programs may write it: hosts are in lower case, and an address is encoded or is not."""
    plain = unquote(secret)
    return {secret, secret.lower(), plain, plain.lower(), quote(plain), quote(plain, safe="")}
