# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The federation's directory as a page: who is a member, and how its server is. Static, without scripts.

Pure: what is known goes in, HTML comes out. Standard library only.
"""

from __future__ import annotations

import datetime
import html
import re
import urllib.parse
from collections.abc import Mapping
from typing import Any

_TIME = "%Y-%m-%dT%H:%M:%SZ"
_EMAIL = re.compile(r"[^\s@:<>\"]+@[a-z0-9.-]+")
_ACCOUNT = re.compile(r"@[^\s:<>\"]+:[a-z0-9.:\[\]-]+")
_LOGO = re.compile(r"data:image/(?:png|jpeg|webp|svg\+xml);base64,[A-Za-z0-9+/]+={0,2}")
_MONTHS = {
    "fr": "janvier,février,mars,avril,mai,juin,juillet,août,septembre,octobre,novembre,décembre",
    "en": "January,February,March,April,May,June,July,August,September,October,November,December",
}
_WORDS: dict[str, dict[str, str]] = {
    "fr": {
        "title": "{name} : annuaire",
        "lead": "Chaque coopérative a son propre serveur de messagerie. Voici les membres de la fédération, et l’état "
        "de leurs serveurs.",
        "summary": "{answering} sur {asked} répondent.",
        "seen": "Vu le {when}.",
        "every": "Cette page est refaite toutes les {every} minutes.",
        "space": "Les salons de la fédération sont dans l’espace {space} : dans Element, « Explorer les salons », puis "
        "collez cette adresse.",
        "watch": "À surveiller",
        "members": "Les membres",
        "member": "Membre",
        "addresses": "Adresses",
        "state": "État",
        "contact": "Contact",
        "talks": "Échanges",
        "address": "@prénom:{domain}",
        "open": "Avec tout le réseau Matrix",
        "federation": "Avec les membres de la fédération",
        "internal": "En interne seulement",
        "hub": "serveur commun de la fédération",
        "answers": "Répond",
        "silent": "Ne répond pas",
        "not-asked": "Non interrogé",
        "since": "depuis le {when}",
        "certificate-ends": "Son certificat expire dans {days} jours, le {day}",
        "certificate-ends-1": "Son certificat expire dans un jour, le {day}",
        "certificate-ends-0": "Son certificat expire aujourd’hui",
        "elsewhere": "Son domaine mène à {host}, la liste dit {listed}",
        "data": "Les mêmes données pour des programmes :",
        "at": "{day} à {hour} h {minute} ({zone})",
    },
    "en": {
        "title": "{name}: directory",
        "lead": "Each cooperative has a chat server of its own. These are the members of the federation, and how their "
        "servers are.",
        "summary": "{answering} of {asked} answer.",
        "seen": "Seen on {when}.",
        "every": "This page is made anew every {every} minutes.",
        "space": "The federation’s rooms are in the space {space}: in Element, “Explore rooms”, then paste this "
        "address.",
        "watch": "To be looked after",
        "members": "The members",
        "member": "Member",
        "addresses": "Addresses",
        "state": "State",
        "contact": "Contact",
        "talks": "Talks to",
        "address": "@name:{domain}",
        "open": "The whole Matrix network",
        "federation": "The members of the federation",
        "internal": "Nobody outside",
        "hub": "the federation’s own server",
        "answers": "Answers",
        "silent": "Does not answer",
        "not-asked": "Not asked",
        "since": "since {when}",
        "certificate-ends": "Its certificate expires in {days} days, on {day}",
        "certificate-ends-1": "Its certificate expires in one day, on {day}",
        "certificate-ends-0": "Its certificate expires today",
        "elsewhere": "Its domain leads to {host}, the list says {listed}",
        "data": "The same for programs:",
        "at": "{day}, {hour}:{minute} ({zone})",
    },
}
# Why a server does not answer, by the kinds of C(public_client.Unreachable) and C(federation_state.Trouble).
_PROBLEMS: dict[str, dict[str, str]] = {
    "fr": {
        "name-not-found": "le nom {host} n’existe pas",
        "name-lookup-failed": "le nom {host} n’a pas pu être trouvé",
        "refused": "{host} refuse la connexion",
        "timeout": "{host} n’a pas répondu à temps",
        "no-route": "{host} est injoignable sur le réseau",
        "closed": "{host} coupe la connexion",
        "tls-expired": "le certificat de {host} a expiré",
        "tls-expired-on": "le certificat de {host} a expiré le {day}",
        "tls-not-yet-valid": "le certificat de {host} n’est pas encore valable",
        "tls-name-mismatch": "le certificat montré n’est pas celui de {host}",
        "tls-unknown-ca": "le certificat de {host} vient d’une autorité inconnue",
        "well-known": "{host} ne dit pas où est son serveur (réponse {status})",
        "delegation": "{host} ne dit pas clairement où est son serveur",
        "status": "le serveur Matrix ne répond pas derrière {host} (réponse {status})",
        "keys": "les clés de signature de {host} ne sont pas valables",
        "": "la réponse de {host} n’est pas celle d’un serveur Matrix",
    },
    "en": {
        "name-not-found": "the name {host} does not exist",
        "name-lookup-failed": "the name {host} could not be looked up",
        "refused": "{host} refuses the connection",
        "timeout": "{host} did not answer in time",
        "no-route": "{host} cannot be reached on the network",
        "closed": "{host} closes the connection",
        "tls-expired": "the certificate of {host} has expired",
        "tls-expired-on": "the certificate of {host} expired on {day}",
        "tls-not-yet-valid": "the certificate of {host} is not valid yet",
        "tls-name-mismatch": "the certificate shown is not that of {host}",
        "tls-unknown-ca": "the certificate of {host} comes from an unknown authority",
        "well-known": "{host} does not say where its server is (answer {status})",
        "delegation": "{host} does not say clearly where its server is",
        "status": "the Matrix server behind {host} does not answer (answer {status})",
        "keys": "the signing keys of {host} are not valid",
        "": "what {host} answers is no answer of a Matrix server",
    },
}


class _Page:
    """The words of one language, escaped where they meet what others wrote."""

    def __init__(self, language: str) -> None:
        self.language = language if language in _WORDS else "fr"
        self.words = _WORDS[self.language]

    def say(self, word: str, **values: object) -> str:
        return self.words[word].format(**{key: html.escape(str(value)) for key, value in values.items()})

    def day(self, moment: datetime.datetime) -> str:
        local = moment.astimezone()
        first = "1er" if self.language == "fr" and local.day == 1 else local.day
        return f"{first} {_MONTHS[self.language].split(',')[local.month - 1]} {local.year}"

    def when(self, text: str) -> str:
        """A moment of state.json, for people and, in the markup, for programs."""
        moment = _moment(text)
        local = moment.astimezone()
        shown = self.say(
            "at", day=self.day(moment), hour=local.hour, minute=f"{local.minute:02}", zone=local.tzname() or "UTC"
        )
        return f'<time datetime="{html.escape(text)}">{shown}</time>'

    def problem(self, state: Mapping[str, Any]) -> str:
        problem = state["problem"] or {}
        kind = str(problem.get("kind", ""))
        words = _PROBLEMS[self.language]
        values = {"host": problem.get("host", ""), "status": problem.get("status", "")}
        if kind == "tls-expired" and state.get("certificate_ends"):
            kind, values["day"] = "tls-expired-on", self.day(_moment(state["certificate_ends"]))
        return words.get(kind, words[""]).format(**{key: html.escape(str(value)) for key, value in values.items()})

    def warning(self, warning: Mapping[str, Any], state: Mapping[str, Any]) -> str:
        if warning["kind"] == "elsewhere":
            return self.say("elsewhere", host=warning["host"], listed=warning["listed"])
        days = int(warning["days"])
        word = f"certificate-ends-{days}" if days in (0, 1) else "certificate-ends"
        return self.say(word, days=days, day=self.day(_moment(state["certificate_ends"])))


def _moment(text: str) -> datetime.datetime:
    return datetime.datetime.strptime(text, _TIME).replace(tzinfo=datetime.UTC)


def troubles(state: Mapping[str, Any], language: str = "en") -> list[str]:
    """Whose servers need a look, and why, as lines for a terminal.

    >>> silent = {"domain": "b.test", "problem": {"kind": "timeout", "host": "m.b.test"}, "warnings": []}
    >>> troubles({"members": [silent]})
    ['b.test does not answer: m.b.test did not answer in time']
    """
    words = _Page(language)
    found = []
    for one in state["members"]:
        name = one["domain"]
        if one["problem"]:
            found.append(f"{name} does not answer: {words.problem(one)}")
        found += [f"{name} is to be looked after: {words.warning(warning, one)}" for warning in one["warnings"]]
    return [html.unescape(text) for text in found]


def page(members: Mapping[str, Any], state: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """The whole page.

    Args:
        members: the published list.
        state: state.json.
        settings: C(language), C(space) (the alias of the federation's space) and C(every) (minutes between two runs).

    >>> "<h1>CAE</h1>" in page({"name": "CAE", "hub": "a.example", "members": []},
    ...     {"seen": "2026-11-22T22:00:00Z", "members": []}, {"language": "fr", "space": "", "every": 5})
    True
    """
    words = _Page(str(settings["language"]))
    say = words.say
    by_domain = {one["domain"]: one for one in state["members"]}
    pairs = [(member, by_domain[member["domain"]]) for member in members["members"]]
    asked = [one for _, one in pairs if one["state"] != "internal"]
    answering = [one for one in asked if one["state"] == "answers"]
    to_watch = [(member, one) for member, one in pairs if one["problem"] or one["warnings"]]
    rows = "\n".join(_row(words, member, one, members["hub"]) for member, one in pairs)
    space = f"<p>{say('space', space=settings['space'])}</p>\n" if settings.get("space") else ""
    return f"""<!DOCTYPE html>
<html lang="{words.language}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>{say("title", name=members["name"])}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="style.css">
</head>
<body>
<header>
<h1>{html.escape(members["name"])}</h1>
<p>{say("lead")}</p>
{space}<p class="seen"><strong>{say("summary", answering=len(answering), asked=len(asked))}</strong>
{words.words["seen"].format(when=words.when(state["seen"]))} {say("every", every=settings["every"])}</p>
</header>
<main>
{_watch(words, to_watch)}<h2 id="members">{say("members")}</h2>
<table aria-labelledby="members">
<thead><tr><th scope="col">{say("member")}</th><th scope="col">{say("addresses")}</th>\
<th scope="col">{say("state")}</th><th scope="col">{say("contact")}</th><th scope="col">{say("talks")}</th></tr></thead>
<tbody>
{rows}
</tbody>
</table>
</main>
<footer><p>{say("data")} <a href="members.json">members.json</a>, <a href="state.json">state.json</a></p></footer>
</body>
</html>
"""


def _watch(words: _Page, to_watch: list[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> str:
    if not to_watch:
        return ""
    lines = []
    for member, one in to_watch:
        said = [f"{words.say('silent')}{_colon(words)}{words.problem(one)}"] if one["problem"] else []
        said += [words.warning(warning, one) for warning in one["warnings"]]
        lines += [f"<li><strong>{html.escape(member['name'])}</strong>{_colon(words)}{text}.</li>" for text in said]
    return (
        f'<section aria-labelledby="watch">\n<h2 id="watch">{words.say("watch")}</h2>\n<ul>\n'
        + "\n".join(lines)
        + "\n</ul>\n</section>\n"
    )


def _colon(words: _Page) -> str:
    return " : " if words.language == "fr" else ": "


def _row(words: _Page, member: Mapping[str, Any], one: Mapping[str, Any], hub: str) -> str:
    say = words.say
    name = html.escape(member["name"])
    logo = member.get("logo") or ""
    picture = (
        f'<img src="{logo}" alt="" width="40" height="40">'
        if _LOGO.fullmatch(logo)
        else '<span class="no-logo"></span>'
    )
    note = f"<br><small>{say('hub')}</small>" if member["domain"] == hub else ""
    if one["state"] == "internal":
        shown = f'<span class="none"><span aria-hidden="true">○</span> {say("not-asked")}</span>'
    else:
        sign, kind = ("✕", "bad") if one["state"] == "silent" else ("▲", "warn") if one["warnings"] else ("●", "good")
        shown = f'<span class="{kind}"><span aria-hidden="true">{sign}</span> {say(one["state"])}</span>'
        shown += "".join(f"<br>{words.warning(warning, one)}" for warning in one["warnings"])
        shown += f"<br>{words.problem(one)}" if one["problem"] else ""
        shown += f"<br><small>{words.words['since'].format(when=words.when(one['since']))}</small>"
    return (
        f'<tr><th scope="row"><span class="who">{picture}<span>{name}{note}</span></span></th>\n'
        f'<td data-label="{say("addresses")}">{say("address", domain=member["domain"])}'
        f"<br><small>{html.escape(member['hostname'])}</small></td>\n"
        f'<td data-label="{say("state")}">{shown}</td>\n'
        f'<td data-label="{say("contact")}">{_contact(member.get("contact") or "")}</td>\n'
        f'<td data-label="{say("talks")}">{say(member.get("profile") or "open")}</td></tr>'
    )


def _contact(contact: str) -> str:
    """An address that can be clicked where it is one of those that a list may hold, else its text alone."""
    shown = html.escape(contact)
    if _EMAIL.fullmatch(contact):
        return f'<a href="mailto:{html.escape(urllib.parse.quote(contact, safe="@+"))}">{shown}</a>'
    if _ACCOUNT.fullmatch(contact):
        return f'<a href="matrix:u/{html.escape(urllib.parse.quote(contact[1:], safe=":"))}">{shown}</a>'
    if contact.startswith("https://"):
        return f'<a href="{shown}" rel="noreferrer">{shown}</a>'
    return shown
