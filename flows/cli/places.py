"""The folders that a command needs to write to, seen to before it starts anything."""

from __future__ import annotations

import os
import re
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

from nas_core.base.addresses import redacted
from nas_core.base.errors import RunError, SettingsError, first_line
from nas_core.base.files import check_writable, expanded
from nas_core.base.paths import artifacts_folder

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.I)
_HOSTS = {"--host", "--allow-host"}
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def check_current_folder() -> None:
    """Raises a RunError where it is gone: nothing could be found from there."""
    try:
        Path.cwd()
    except OSError as error:
        raise RunError(
            f"the current folder cannot be found ({error.strerror}): change to one that is there"
        ) from None


def check_no_address(arguments: Sequence[str]) -> None:
    """Raises a SettingsError for an address: what arguments and options take is on this machine.

    Settings and parameters, which may hold one, are given as key=value; what takes the name of a
    host says itself what that is.
    """
    for before, argument in zip(["", *arguments], arguments, strict=False):
        option, _, of_option = argument.partition("=")
        value = of_option if argument.startswith("--") else argument
        if _ADDRESS.match(value) and not {before, option} & _HOSTS:
            raise SettingsError(
                f"{redacted(value)} is an address: give the path of a folder or file of this "
                "machine, and fetch first what lies elsewhere"
            )


def check_connections() -> None:
    """See that the environment's proxies and certificates are some: httpx reads all, used or not.

    Raises:
        SettingsError: one cannot be used.
    """
    import httpx

    try:
        httpx.create_ssl_context()
    except OSError as error:
        raise SettingsError(
            f"SSL_CERT_FILE is {os.environ.get('SSL_CERT_FILE')}, which cannot be used "
            f"({error.strerror or first_line(error)}): correct it or unset it"
        ) from None
    named = [name for name in os.environ if name.lower() in _PROXIES and os.environ[name]]
    for name in sorted(named):
        address = os.environ[name]
        url = address if "://" in address else f"http://{address}"
        try:
            httpx.HTTPTransport(proxy=url, verify=False).close()
        except (ImportError, ValueError, httpx.InvalidURL) as error:
            # Without the address, which may hold a password.
            reason = "expected http://HOST:PORT"
            if isinstance(error, ImportError):
                reason = "SOCKS needs the package socksio: pip install socksio"
            raise SettingsError(
                f"{name} cannot be used ({reason}): correct it or unset it"
            ) from None
    try:
        httpx.Client(verify=False).close()
    except httpx.InvalidURL:
        raise SettingsError(
            "no_proxy (or NO_PROXY) cannot be used: give names and addresses, those of IPv6 "
            "without brackets and masks, as 127.0.0.1,::1"
        ) from None


def check_places(root: Path) -> None:
    """See that the artifacts, Prefect's state and temporary files have a place.

    Prefect itself would try for minutes.

    Raises:
        RunError: one of them cannot be written.
        SettingsError: see `check_connections`.
    """
    check_connections()
    check_writable(artifacts_folder(root), "make it writable, or work in a copy of the project")
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        raise RunError(
            "there is no folder for temporary files: set TMPDIR to one that can be written"
        ) from None
    remedy = "set PREFECT_HOME (or HOME) to a folder that can be written"
    named = os.environ.get("PREFECT_HOME", "")
    if named.startswith("~") and str(expanded(named)) == named:
        raise RunError(f"PREFECT_HOME is {named}, and there is no such user: {remedy}")
    try:
        check_writable(expanded(os.environ.get("PREFECT_HOME") or "~/.prefect"), remedy)
    except RunError:
        # Prefect's files of settings may name another one; to read them takes seconds.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of what is said here
            from prefect.settings import Settings

            check_writable(Settings().home, remedy)
