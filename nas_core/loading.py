"""params.yaml, a profile and overrides to checked settings.

`params.yaml` holds every setting, for CamVid. A profile (`profiles/NAME.yaml`) holds only what
differs from it; the profile `camvid` is params.yaml itself.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from nas_core.base.addresses import has_credentials, redacted
from nas_core.base.errors import SettingsError, shown, some_of
from nas_core.base.letters import as_seen, escaped
from nas_core.base.problems import in_words, key_of
from nas_core.base.project import project_dir
from nas_core.base.yaml_files import parse_yaml, read_yaml
from nas_core.config import SECTIONS, Settings

_SHOWN_PROBLEMS = 8


def load_settings(
    profile: str = "camvid",
    overrides: Iterable[str] = (),
    sections: Mapping[str, Any] | None = None,
    *,
    root: Path | None = None,
) -> Settings:
    """The settings of a profile, with overrides.

    Args:
        profile: `camvid` (params.yaml itself) or the name of a file in profiles/.
        overrides: `key=value` strings with dotted keys and YAML values; they win.
        sections: nested values laid over the profile, as the Prefect flow gets them.
        root: the project's folder, found by `project_dir` if not given.

    Raises:
        SettingsError: an unknown key, a value out of range, or a file that cannot be read. The
            message names the file, the key and the nearest valid one.
    """
    root = root or project_dir()
    if (root / "profiles" / "camvid.yaml").exists():
        raise SettingsError(
            "profiles/camvid.yaml: the profile camvid is params.yaml itself; give the file another "
            "name"
        )
    values = _read_yaml(root / "params.yaml")
    sources = ["params.yaml"]
    if profile != "camvid":
        path = root / "profiles" / f"{profile}.yaml"
        if profile not in profiles(root):
            raise SettingsError(
                f"unknown profile {shown(profile)}; there are: {some_of(profiles(root))}; "
                "`nas data check FOLDER --profile NAME` writes one"
            )
        _lay_over(values, _read_yaml(path))
        sources.append(f"profiles/{profile}.yaml")
    _lay_over(values, dict(sections or {}))
    for override in overrides:
        _lay_over(values, _parse_override(override))
    return validate_settings(values, source=" with ".join(sources))


def profiles(root: Path) -> list[str]:
    """The names that `load_settings` takes as a profile."""
    return sorted({"camvid", *(path.stem for path in (root / "profiles").glob("*.yaml"))})


def validate_settings(values: Any, source: str) -> Settings:
    """Check nested plain values; `source` begins the error's message."""
    if not isinstance(values, dict):
        raise SettingsError(f"{source}: expected keys and values, found {type(values).__name__}")
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        found = error.errors()
        problems = [_explain(problem) for problem in found[:_SHOWN_PROBLEMS]]
        if len(found) > len(problems):
            problems.append(f"and {len(found) - len(problems)} more")
        raise SettingsError(f"{source}: {'; '.join(problems)}") from None


def check_once(option: str, values: Sequence[Any]) -> None:
    """See that the values of an option are given, each once.

    Raises:
        SettingsError: there is none, or one is given twice.
    """
    if not values:
        raise SettingsError(f"{option}: give one or more")
    check_distinct(option, values)


def check_distinct(option: str, values: Sequence[Any]) -> None:
    """See that no value of an option is given twice.

    Raises:
        SettingsError: one is.
    """
    if twice := [value for value in values if list(values).count(value) > 1]:
        raise SettingsError(f"{option} {twice[0]} is given twice: name each once")


def setting_keys(model: type[BaseModel] = Settings, prefix: str = "") -> list[str]:
    """All valid keys in dotted form: `seed`, `search.proxy.epochs_a` ..."""
    keys: list[str] = []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += setting_keys(field.annotation, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


def _explain(problem: Any) -> str:
    key = key_of(problem)
    if problem["type"] == "extra_forbidden":
        # No key has other letters, whatever they look like.
        unknown = f"unknown key '{escaped(key)}'"
        if any("." in str(part) for part in problem["loc"]):
            return f"{unknown}: write one key beneath another, without dots"
        return f"{unknown}{_nearest(as_seen('.'.join(map(str, problem['loc']))))}"
    message, value = in_words(problem), shown(problem["input"])
    if problem["input"] is None:
        return f"{key} is empty: {message}"
    if problem["type"] == "literal_error":
        value = escaped(value)
    if isinstance(problem["input"], dict) or "tracking" in problem["loc"] or _may_tell(value):
        return f"{key}: {message}"
    return f"{key} = {value}: {message}"


def _may_tell(value: str) -> bool:
    """Whether a value in quotes could be an address, which may hold a password."""
    return "://" in value or has_credentials(value.strip("'"))


def _nearest(key: str) -> str:
    """A hint at the valid key that is most like an unknown one: on its level, or by its name."""
    keys = setting_keys()
    paths = {".".join(known.split(".")[: key.count(".") + 1]) for known in keys}
    # A key that has become one of a section of its own is there with a dot for a `_`.
    close = [known for known in keys if known.replace(".", "_") == key.replace(".", "_")]
    close = close or difflib.get_close_matches(key, sorted(paths), n=1, cutoff=0.7)
    if not close:
        last = key.rsplit(".", 1)[-1]
        close = [known for known in keys if known.rsplit(".", 1)[-1] == last]
    return f"; did you mean {close[0]!r}?" if close else f"; sections are {', '.join(SECTIONS)}"


def _parse_override(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise SettingsError(
            f"-S {redacted(shown(text)[1:-1])}: expected key=value, for example "
            "search.num_candidates=8"
        )
    try:
        nested = parse_yaml(value, source=key)
    except ValueError:
        what = "the value" if _may_tell(shown(value)) else shown(value)
        raise SettingsError(f"-S {shown(key)[1:-1]}: {what} is not a YAML value") from None
    for part in reversed(key.split(".")):
        nested = {part: nested}
    return cast(dict[str, Any], nested)


def _lay_over(values: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(values.get(key), dict):
            _lay_over(values[key], value)
        else:
            values[key] = dict(value) if isinstance(value, Mapping) else value


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = read_yaml(path)
    except FileNotFoundError:
        raise SettingsError(f"{path} does not exist") from None
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise SettingsError(str(error)) from None
    if not isinstance(values, dict):
        raise SettingsError(f"{path}: expected keys and values")
    return values
