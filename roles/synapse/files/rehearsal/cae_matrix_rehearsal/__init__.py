# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Could Synapse start with this? Reads its configuration as it does, and imports all that is named there.

    python -m cae_matrix_rehearsal [--imports] DIRECTORY < DECLARED

DECLARED, in YAML, wins over the files of DIRECTORY, as a further file of Synapse would; empty, the files are rehearsed
as they are. With --imports, only what is imported is looked at: the files that DECLARED names may be still to come.
Nothing is started, opened or written.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterator
from logging.config import BaseConfigurator
from typing import Any

import yaml

_SECRET = re.compile(r"secret|password|passphrase|token|key", re.IGNORECASE)
_LISTS = ("modules", "password_providers", "spam_checker", "media_storage_providers")
# Parts that are imported only where they are switched on: in the section, the key that does it, and its extra.
_EXTRAS = (
    ("saml2_config", "sp_config", "saml2"),
    ("saml2_config", "config_path", "saml2"),
    ("jwt_config", "enabled", "jwt"),
    ("redis", "enabled", "redis"),
    ("opentracing", "enabled", "opentracing"),
    ("sentry", "dsn", "sentry"),
    ("caches", "track_memory_usage", "cache-memory"),
)


class Unfit(Exception):
    """Synapse could not start; the text says why."""


def _section(document: dict[str, Any], key: str) -> dict[str, Any]:
    found = document.get(key)
    return found if isinstance(found, dict) else {}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def named(document: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Where in the configuration which class is named."""
    for key in _LISTS:
        for number, one in enumerate(_listed(document.get(key))):
            if isinstance(one, dict):
                yield f"{key}[{number}]", one.get("module")
    yield "third_party_event_rules", _section(document, "third_party_event_rules").get("module")
    yield "presence.presence_router", _section(_section(document, "presence"), "presence_router").get("module")
    if _section(document, "ldap_config").get("enabled"):
        yield "ldap_config", "ldap_auth_provider.LdapAuthProvider"
    for key in ("oidc_providers", "oidc_config", "saml2_config"):
        for one in _listed(document.get(key)):
            if isinstance(one, dict):
                yield f"{key}.user_mapping_provider", _section(one, "user_mapping_provider").get("module")
    for listener in _listed(document.get("listeners")):
        if isinstance(listener, dict):
            resources = _section(listener, "additional_resources")
            for path in resources:
                yield f"listeners.additional_resources.{path}", _section(resources, path).get("module")


def check_imports(document: dict[str, Any]) -> None:
    """Everything that Synapse would import because the configuration says so."""
    for where, name in named(document):
        # Without a dot, it is a short name of one of Synapse's own.
        if isinstance(name, str) and "." in name:
            module, _, attribute = name.rpartition(".")
            try:
                getattr(importlib.import_module(module), attribute)
            except Exception as error:
                raise Unfit(
                    f"{where}: {name} cannot be imported ({error or type(error).__name__}). Take it out, or have its "
                    "library installed beside Synapse: synapse_extra_requirements."
                ) from None
    from synapse.util.check_dependencies import DependencyException, check_requirements

    extras = [
        extra
        for section, key, extra in _EXTRAS
        if _section(document, section).get(key) and _section(document, section).get("enabled") is not False
    ]
    if document.get("oidc_providers") or _section(document, "oidc_config").get("enabled"):
        extras.append("oidc")
    for extra in extras:
        try:
            check_requirements(extra)
        except DependencyException as error:
            raise Unfit(
                f"{extra}: a library is missing ({' '.join(str(error).split())}). Have it installed beside Synapse: "
                "synapse_extra_requirements."
            ) from None


def check_logging(path: str | None) -> None:
    """The classes that the journal's configuration names; handlers are not made, they would open files."""
    if not path:
        return
    with open(path, encoding="utf-8") as file:
        document = yaml.safe_load(file)
    configurator = BaseConfigurator({})
    for section in ("handlers", "formatters", "filters"):
        for name, one in _section(document or {}, section).items():
            for key in ("class", "()"):
                if isinstance(one, dict) and isinstance(one.get(key), str):
                    try:
                        configurator.resolve(one[key])
                    except ValueError as error:
                        raise Unfit(f"log_config: {section}.{name}: {error}") from None


def check(directory: str, declared: str, imports_only: bool) -> None:
    """Raise Unfit where Synapse could not start."""
    from synapse.config._base import ConfigError, find_config_files, format_config_error, read_config_files

    document = yaml.safe_load(declared) or {}
    if not isinstance(document, dict):
        raise Unfit("what is declared is no mapping")
    if imports_only:
        return check_imports(document)
    paths = [directory]
    if document:
        # A file in memory: what is secret in it does not touch the disk.
        memory = os.memfd_create("declared")
        os.write(memory, declared.encode())
        paths.append(f"/proc/self/fd/{memory}")
    try:
        merged = read_config_files(find_config_files(paths))
        check_imports(merged)
        importlib.import_module("synapse.app.homeserver")
        config = importlib.import_module("synapse.config.homeserver").HomeServerConfig
        config.load_config("", [word for path in paths for word in ("-c", path)])
    except ConfigError as error:
        raise Unfit("".join(format_config_error(error)).strip()) from None
    check_logging(merged.get("log_config"))


def without_secrets(text: str, value: Any, secret: bool = False) -> str:
    """Errors quote values."""
    if isinstance(value, dict):
        for key, item in value.items():
            text = without_secrets(text, item, bool(_SECRET.search(str(key))))
    elif isinstance(value, list):
        for item in value:
            text = without_secrets(text, item, secret)
    elif secret and isinstance(value, str) and len(value) >= 4:
        text = text.replace(value, "(secret)")
    return text


def main(arguments: list[str]) -> int:
    declared = sys.stdin.read()
    try:
        check(arguments[-1], declared, "--imports" in arguments)
    except Unfit as error:
        said = str(error)
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    else:
        return 0
    try:
        said = without_secrets(said, yaml.safe_load(declared))
    except yaml.YAMLError:
        said = "what is declared is no YAML"
    print(said, file=sys.stderr)
    return 1
