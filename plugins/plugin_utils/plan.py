# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the roles make of what is declared for a host: their variables, all of them, before any of their tasks runs.

A role's variables are data with templates in them; here they are read as the role itself would read them, so that the
mistakes of all roles come together, and each document is composed once.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.parsing.dataloader import DataLoader
from ansible_collections.cae.matrix.plugins.module_utils.encryption import opt_in as encryption_opt_in
from ansible_collections.cae.matrix.plugins.module_utils.encryption.opt_in import digest
from ansible_collections.cae.matrix.plugins.module_utils.encryption.registration import plain
from ansible_collections.cae.matrix.plugins.module_utils.federation import policy as federation_policy
from ansible_collections.cae.matrix.plugins.module_utils.federation.member_list import read
from ansible_collections.cae.matrix.plugins.module_utils.federation.members import MembersError
from ansible_collections.cae.matrix.plugins.module_utils.instance.variables import Checked

ROLES = Path(__file__).resolve().parents[2] / "roles"
# Each role's document, by the name that encryption_opt_in gives it.
DOCUMENTS = {"synapse": "synapse", "well_known": "reverse_proxy", "element": "element_web"}
# What several of a role's checks read, and its document: composed once. Each after what it is made of.
ONCE = {"synapse": ("_synapse_base", "_synapse_merged")}
# Where no domain is declared, so that everything else can be read; what is wrong with it is nobody's mistake.
NO_DOMAIN = "missing.invalid"


class NotYetKnown(AnsibleError):
    """A value depends on what nobody knows yet; its cause says on what."""


class Declaration:
    """The variables of all roles for one host, with what the inventory and the run say of them."""

    def __init__(self, templar: Any, loader: DataLoader, declared: Mapping[str, Any]) -> None:
        self._templar = templar
        self._defaults = _variables(loader, "defaults")
        self._of_roles = _variables(loader, "vars")
        self._declared = dict(declared)
        self._templars: dict[str, Any] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._declared

    def know(self, **facts: Any) -> None:
        """What replaces what is declared, or is known beside it."""
        self._declared.update(facts)
        self._templars.clear()

    def forget(self, names: Iterable[str]) -> None:
        """Read the roles' defaults in the place of these."""
        for name in names:
            self._declared.pop(name, None)
        self._templars.clear()

    def value(self, role: str, name: str) -> Any:
        """A variable as the tasks of a role read it.

        Raises:
            NotYetKnown: it cannot be read yet.
        """
        templar = self._templar_of(role)
        return self._read(role, templar.available_variables[name])

    def _templar_of(self, role: str) -> Any:
        if role not in self._templars:
            here = str(ROLES / role)
            # Where its lookups find the role's own files.
            places = {"role_path": here, "ansible_search_path": [here]}
            everything = {**self._defaults, **self._declared, **self._of_roles, **places}
            self._templars[role] = self._templar.copy_with_new_env(available_variables=everything)
            for once in ONCE.get(role, ()):
                with suppress(NotYetKnown):
                    everything[once] = self._read(role, everything[once])
        return self._templars[role]

    def _read(self, role: str, raw: Any) -> Any:
        try:
            return self._templar_of(role).template(raw)
        except AnsibleError as error:
            raise NotYetKnown(str(error)) from error

    def problems(self, role: str, *, sure: bool) -> list[str]:
        """What is wrong with a role's variables, as the role's own C(vars) say.

        C(_<role>_problems) is a list of lines; C(_<role>_checks) is one of dicts, each with what has to be C(good), and
        the C(text) of the line where it is not.

        Args:
            role: the role's name.
            sure: that all can be read; else what cannot be read is passed over.
        """
        found: list[str] = []
        asked = [{"lines": self._of_roles.get(f"_{role}_problems", [])}, *self._of_roles.get(f"_{role}_checks", [])]
        for one in asked:
            with suppress(*() if sure else (NotYetKnown,)):
                if "lines" in one:
                    found += map(str, self._read(role, one["lines"]))
                elif not self._read(role, one["good"]):
                    found.append(str(self._read(role, one["text"])))
        return found


class InstancePlan:
    """What is wrong with what is declared, in all roles that take part, and what follows from it, as facts."""

    def __init__(self, declared: Declaration, whole: bool) -> None:
        self.declared = declared
        self.whole = whole
        # Whether a value waits for the machine: a default in its place could make a mistake of what is none.
        self.waits = False
        self.problems: list[str] = []
        self.facts: dict[str, Any] = {}
        # So that what is derived from a domain can be read where none is declared.
        self._forget(())

    def take(self, checked: Checked) -> None:
        """What the argument specs make of the values, so that the rest can be read, whatever is wrong with some."""
        self.problems += checked.problems
        self._keep(**checked.converted)
        self._forget(checked.wrong)

    def without_machine(self) -> None:
        """Before any connection: only what is wrong whatever the machine may be."""
        contradictions: list[encryption_opt_in.Problem] = []
        with suppress(NotYetKnown):
            self._keep(machine_packages=self.declared.value("machine", "_machine_packages_of_all"))
        with suppress(NotYetKnown):
            self._list_of_members()
        with suppress(NotYetKnown):
            self._policy(refuse=self.whole and not self._absent())
        for role in ["matrix"] if self.waits else self._roles():
            self.problems += self.declared.problems(role, sure=False)
        if self.whole and not self.waits and not self._absent():
            # Each mistake once: what follows from one that has been told is none.
            told = {re.split(r"\W", problem)[0] for problem in self.problems}
            self._forget(name for name in told if not name.endswith("_extra_config"))
            with suppress(NotYetKnown):
                self.declared.know(postgresql_connection=self._connection())
            contradictions = encryption_opt_in.problems(self._documents(DOCUMENTS.values(), sure=False))
        self._refuse(contradictions)

    def with_documents(self, roles: Collection[str]) -> None:
        """Once the machine has been looked at: each role's document, composed once, and passed through the filter.

        Raises:
            AnsibleError: a document cannot be composed.
        """
        self._policy(refuse=True)
        self._keep(postgresql_connection=self._connection())
        everything = set(roles) == set(DOCUMENTS.values())
        for role in self._roles() if self.whole else [*roles, *(["encryption_gate"] if everything else [])]:
            self.problems += self.declared.problems(role, sure=True)
        if self.problems:
            return
        try:
            documents = encryption_opt_in.normalise(self._documents(roles, sure=True))
        except encryption_opt_in.Contradictions as error:
            self._refuse(error.problems)
            return
        for name, role in DOCUMENTS.items():
            if role in roles:
                self.facts[f"{role}_document"] = documents[name]
        if "synapse" in roles:
            self.facts["synapse_release_marker"] = self.declared.value("synapse", "_synapse_release_marker")
        if everything:
            self.facts |= {"encryption_gate_documents": documents, "encryption_gate_digest": digest(documents)}

    def _roles(self) -> list[str]:
        return roles() if self.whole and not self._absent() else ["matrix"]

    def _absent(self) -> bool:
        return bool(self.declared.value("matrix", "matrix_state") == "absent")

    def _refuse(self, contradictions: list[encryption_opt_in.Problem]) -> None:
        """Keep the contradictions among the problems; on their own, in the filter's own words."""
        if contradictions and not self.problems:
            self.problems = [str(encryption_opt_in.Contradictions(contradictions))]
        else:
            self.problems += map(str, contradictions)
        if self.declared.value("matrix", "matrix_domain") == NO_DOMAIN:
            self.problems = [problem for problem in self.problems if NO_DOMAIN not in problem]

    def _list_of_members(self) -> None:
        """The list, where it is a file: what a hub publishes is fetched, and compared with what the machine has."""
        if "federation_list" in self.declared:
            return
        source = self.declared.value("federation", "federation_members")
        if not source:
            self._keep(federation_list={})
            return
        if not self.whole or self._absent() or self.declared.value("federation", "_federation_members_fetched"):
            return
        names = {"key": "federation_members_key", "hub": "federation_hub"}
        names |= {name: f"matrix_{name}" for name in ("domain", "hostname", "profile")}
        params = {name: plain(self.declared.value("federation", variable)) for name, variable in names.items()}
        try:
            found, _ = read({**params, "source": str(self.declared.value("federation", "_federation_members_source"))})
        except MembersError as error:
            self.problems += str(error).splitlines()
        else:
            self.declared.know(federation_list=found)

    def _policy(self, refuse: bool) -> None:
        """Whom the server federates with; where that is not clear, the reasons, if they are to be refused."""
        if "federation_policy" in self.declared:
            return
        profile, domain, hub = (
            str(self.declared.value("federation", name))
            for name in ("matrix_profile", "matrix_domain", "federation_hub")
        )
        known = "federation_list" in self.declared
        listed = plain(self.declared.value("federation", "federation_list")) if known else {"hub": hub, "members": []}
        denied, allowed = (
            plain(self.declared.value("federation", name))
            for name in ("federation_denied_servers", "federation_allowed_servers")
        )
        try:
            policy = federation_policy.policy(profile, listed, domain, hub, denied, allowed)
        except federation_policy.Contradictions as error:
            self.problems += error.problems if refuse else []
            self.declared.know(federation_policy=federation_policy.policy("open", {}, domain))
            return
        if known:
            self._keep(federation_policy=policy)
        else:
            # Without the list, nobody can say who is not in it.
            self.declared.know(federation_policy={**policy, "allowed": None}, federation_list={"members": []})

    def _connection(self) -> Any:
        """How the database is reached, as far as its port is known."""
        return self.declared.value("postgresql", "_postgresql_connection")

    def _forget(self, names: Iterable[str]) -> None:
        self.declared.forget(names)
        if "matrix_domain" not in self.declared:
            self.declared.know(matrix_domain=NO_DOMAIN)

    def _keep(self, **facts: Any) -> None:
        self.facts |= facts
        self.declared.know(**facts)

    def _documents(self, wanted: Collection[str], *, sure: bool) -> dict[str, Any]:
        if not boolean(self.declared.value("matrix", "matrix_element_enabled")):
            wanted = set(wanted) - {"element_web"}
        documents: dict[str, Any] = dict.fromkeys(DOCUMENTS)
        for name, role in DOCUMENTS.items():
            with suppress(*() if sure else (NotYetKnown,)):
                documents[name] = self.declared.value(role, f"_{role}_document") if role in wanted else None
        return documents


def message(problems: Sequence[str]) -> str:
    """One mistake as it is, several with numbers."""
    if len(problems) == 1:
        return problems[0]
    lines = (f"  {number}. {problem}" for number, problem in enumerate(problems, 1))
    return "\n".join([f"{len(problems)} mistakes in what is declared:", *lines])


def _variables(loader: DataLoader, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in sorted(ROLES.glob(f"*/{kind}/main.yml")):
        found.update(loader.load_from_file(str(path), trusted_as_template=True) or {})
    return found


def roles() -> list[str]:
    """The names of the collection's roles, the one first that says what an instance is called."""
    names = sorted(path.parent.parent.name for path in ROLES.glob("*/meta/main.yml"))
    return sorted(names, key=lambda name: name != "matrix")
