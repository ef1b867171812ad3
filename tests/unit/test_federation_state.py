# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The hub's directory: members' servers asked over real HTTPS, what is kept of it, and the page that people read."""

from __future__ import annotations

import contextlib
import datetime
import doctest
import html.parser
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from ansible_collections.cae.matrix.plugins.module_utils.federation import page as federation_page
from ansible_collections.cae.matrix.plugins.module_utils.federation.page import page
from ansible_collections.cae.matrix.plugins.module_utils.federation.state import (
    SCHEMA,
    Seen,
    look,
    look_at_all,
    read_before,
    state_document,
    write,
)
from ansible_collections.cae.matrix.plugins.module_utils.outside import public_client
from ansible_collections.cae.matrix.plugins.module_utils.outside.public_client import PublicClient, Unreachable
from ansible_collections.cae.matrix.tests.patience import START, at_most, patient
from ansible_collections.cae.matrix.tests.unit.public_server import DAY, Answer, Asked, Authority, serve, speak
from ansible_collections.cae.matrix.tests.unit.test_verify import keys
from hypothesis import given, settings
from hypothesis import strategies as some

DOMAIN, HOSTNAME = "atelier.test", "matrix.atelier.test"
NOW = datetime.datetime(2026, 11, 22, 22, 5, tzinfo=datetime.UTC)
STATE = Path(__file__).parents[2] / "plugins/module_utils/federation/state.py"
SETTINGS = {"language": "fr", "space": "#federation:hub.test", "every": 5}


def member(domain: str = DOMAIN, **more: str) -> dict[str, str]:
    return {
        "name": "Atelier",
        "domain": domain,
        "hostname": f"matrix.{domain}",
        "contact": "",
        "logo": "",
        "profile": "open",
    } | more


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


class Member:
    """A member's server; `changed` says what it answers otherwise, by path."""

    def __init__(self, **changed: tuple[int, object]) -> None:
        self.changed = changed

    def __call__(self, asked: Asked) -> Answer:
        last = asked.path.rpartition("/")[2]
        server = "delegation" if asked.path.startswith("/.well-known") else last
        good: dict[str, object] = {
            "delegation": {"m.server": f"{HOSTNAME}:443"},
            "version": {"server": {"name": "Synapse", "version": "1.163.2"}},
            "server": keys(),
        }
        if asked.path == "/_matrix/key/v2/server":
            server = "server"
        status, body = self.changed.get(server, (200, good[server]))
        text = body if isinstance(body, str) else json.dumps(body)
        return status, {"Content-Type": "application/json"}, text.encode()


@contextlib.contextmanager
def asking(
    site: Member, authority: Authority, starts: datetime.timedelta = -2 * DAY, ends: datetime.timedelta = 90 * DAY
) -> Iterator[PublicClient]:
    with serve(site, authority.server_context(DOMAIN, HOSTNAME, starts=starts, ends=ends)) as where:
        nowhere = closed_port()
        resolve = {DOMAIN: where, HOSTNAME: where, f"{DOMAIN}:8448": nowhere, "matrix.elsewhere.test": where}
        yield PublicClient(resolve, str(authority.ca_file), timeout=patient(2))


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()[:2]
    return f"{host}:{port}"


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def test_a_server_that_is_well(authority: Authority) -> None:
    with asking(Member(), authority) as client:
        seen = look(member(), client, now())
    assert (seen.state, seen.problem, seen.warnings, seen.cause) == ("answers", None, [], "")
    assert (seen.server, seen.version) == ("matrix.atelier.test:443", "Synapse 1.163.2")
    assert str(seen.certificate_ends).startswith(f"{now() + 90 * DAY:%Y-%m-%d}")


@pytest.mark.parametrize(
    ("site", "problem", "said"),
    [
        (Member(delegation=(404, "no")), {"kind": "well-known", "host": DOMAIN, "status": 404}, "ne dit pas où"),
        (Member(delegation=(200, "<html>")), {"kind": "not-json", "host": DOMAIN}, "n’est pas celle d’un serveur"),
        (Member(delegation=(200, [])), {"kind": "not-json", "host": DOMAIN}, "n’est pas celle d’un serveur"),
        (Member(delegation=(200, {"m.server": "a/b"})), {"kind": "delegation", "host": DOMAIN}, "clairement"),
        (Member(delegation=(200, {"m.server": 7})), {"kind": "delegation", "host": DOMAIN}, "clairement"),
        (Member(version=(502, "")), {"kind": "status", "host": HOSTNAME, "status": 502}, "(réponse 502)"),
        (Member(server=(200, keys(server_name="b.test"))), {"kind": "keys", "host": HOSTNAME}, "clés de signature"),
        (Member(server=(200, keys(valid_until_ts=1))), {"kind": "keys", "host": HOSTNAME}, "clés de signature"),
        (Member(server=(200, "x" * (2 << 20))), {"kind": "too-large", "host": HOSTNAME}, "n’est pas celle"),
    ],
)
def test_what_other_servers_would_stumble_over(
    authority: Authority, site: Member, problem: dict[str, object], said: str
) -> None:
    with asking(site, authority) as client:
        seen = look(member(), client, now())
    assert (seen.state, seen.problem) == ("silent", problem)
    assert seen.cause.endswith((".", "…"))
    assert said in shown(seen)


def test_a_certificate_that_has_run_out_names_the_member_and_the_day(authority: Authority) -> None:
    with asking(Member(), authority, starts=-30 * DAY, ends=-2 * DAY) as client:
        seen = look(member(name="La Fabrique"), client, now())
    assert seen.problem == {"kind": "tls-expired", "host": DOMAIN}
    ended = (now() - 2 * DAY).astimezone()
    assert str(seen.certificate_ends).startswith(f"{now() - 2 * DAY:%Y-%m-%d}")
    text = shown(seen, member(name="La Fabrique"))
    assert "<strong>La Fabrique</strong> : Ne répond pas : le certificat de atelier.test a expiré le" in text
    assert f" {ended.year}." in text


@pytest.mark.parametrize(("left", "said"), [(5, "expire dans 5 jours"), (1, "expire dans un jour"), (0, "aujourd’hui")])
def test_a_certificate_that_will_run_out_is_a_warning(authority: Authority, left: int, said: str) -> None:
    with asking(Member(), authority, ends=left * DAY + datetime.timedelta(hours=1)) as client:
        seen = look(member(), client, now())
    assert (seen.state, seen.warnings) == ("answers", [{"kind": "certificate-ends", "days": left}])
    assert said in shown(seen)


def test_another_server_than_the_list_says_is_a_warning(authority: Authority) -> None:
    with asking(Member(), authority) as client:
        seen = look(member(hostname="autre.atelier.test"), client, now())
    assert seen.warnings == [{"kind": "elsewhere", "host": HOSTNAME, "listed": "autre.atelier.test"}]
    assert "Son domaine mène à matrix.atelier.test, la liste dit autre.atelier.test" in shown(seen)


def test_a_server_without_delegation_is_looked_for_on_8448(authority: Authority) -> None:
    with asking(Member(delegation=(404, "no")), authority) as client:
        client.resolve[f"{DOMAIN}:8448"] = client.resolve[DOMAIN]
        seen = look(member(hostname=DOMAIN), client, now())
    assert (seen.state, seen.server, seen.warnings) == ("answers", "atelier.test:8448", [])


def test_who_is_for_itself_is_not_asked() -> None:
    seen = look(member(profile="internal"), PublicClient({DOMAIN: closed_port()}), now())
    assert (seen.state, seen.problem) == ("internal", None)
    assert "Non interrogé" in shown(seen, member(profile="internal"))


def test_one_that_hangs_holds_nobody_up(authority: Authority) -> None:
    def hang(peer: socket.socket) -> None:
        while peer.recv(4096):
            pass

    with asking(Member(), authority) as client, speak(hang) as hangs:
        client.resolve["morte.test"] = hangs
        with at_most(4):
            found = look_at_all([member(), member("morte.test")], lambda one: look(one, client, now()))
    assert found[DOMAIN].state == "answers"
    assert found["morte.test"].problem == {"kind": "timeout", "host": "morte.test"}


def test_when_time_is_up_who_has_not_answered_is_silent() -> None:
    def one(given: Mapping[str, str]) -> Seen:
        if given["domain"] == "b.test":
            released.wait(patient(START))
        return Seen("answers")

    released = threading.Event()
    try:
        with at_most(2):
            found = look_at_all([member("a.test"), member("b.test"), member("c.test")], one, patient(0.5), at_once=2)
    finally:
        released.set()
    assert [found[name].state for name in ("a.test", "b.test", "c.test")] == ["answers", "silent", "answers"]


def test_a_server_that_breaks_us_is_alone_in_that(capsys: pytest.CaptureFixture[str]) -> None:
    def one(given: Mapping[str, str]) -> Seen:
        if given["domain"] == "a.test":
            raise RuntimeError("what nobody thought of")
        return Seen("answers")

    found = look_at_all([member("a.test"), member("b.test")], one, at_once=1)
    assert (found["a.test"].problem, found["b.test"].state) == ({"kind": "unexpected", "host": "a.test"}, "answers")
    assert "what nobody thought of" in capsys.readouterr().err


def test_a_hundred_members_with_ten_dead_ones_are_soon_done(authority: Authority) -> None:
    names = [f"coop{number}.test" for number in range(100)]
    context = authority.server_context(*names, HOSTNAME)
    dead = socket.create_server(("127.0.0.1", 0), backlog=0)
    with contextlib.ExitStack() as stack:
        stack.enter_context(dead)
        # Several, since each has room for few connections that wait.
        alive = [stack.enter_context(serve(Member(), context)) for _ in range(10)]
        resolve = {name: alive[number % 9] for number, name in enumerate(names)}
        resolve |= {name: f"127.0.0.1:{dead.getsockname()[1]}" for name in names[::10]}
        client = PublicClient(resolve | {HOSTNAME: alive[9]}, str(authority.ca_file), timeout=patient(3))
        with at_most(15):
            found = look_at_all([member(name) for name in names], lambda one: look(one, client, now()), at_once=16)
    # All but the dead show the keys of another member, which is seen last.
    kinds = {name: (seen.problem or {})["kind"] for name, seen in found.items()}
    assert kinds == {name: "timeout" if name in names[::10] else "keys" for name in names}


# --- what is kept -----------------------------------------------------------------------------------------------


def test_since_when_goes_on_while_nothing_changes(tmp_path: Path) -> None:
    members = [member("a.test"), member("b.test")]
    well, ill = Seen("answers"), Seen("silent", {"kind": "refused", "host": "b.test"}, cause="It refuses.")
    first = state_document(members, {"a.test": well, "b.test": well}, {}, NOW)
    write(tmp_path / "state.json", json.dumps(first))
    later = NOW + datetime.timedelta(minutes=5)
    second = state_document(members, {"a.test": well, "b.test": ill}, read_before(tmp_path / "state.json"), later)
    assert [one["since"] for one in second["members"]] == ["2026-11-22T22:05:00Z", "2026-11-22T22:10:00Z"]
    assert second["schema"] == SCHEMA
    assert "cause" not in second["members"][1]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"schema": "x"}',
        json.dumps({"schema": SCHEMA}),
        json.dumps({"schema": SCHEMA, "members": 3}),
        json.dumps({"schema": SCHEMA, "members": [{"domain": "a", "state": "answers", "since": "<b>"}]}),
    ],
)
def test_a_state_that_cannot_be_used_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    assert read_before(tmp_path / "state.json") == {}
    assert read_before(tmp_path / "nowhere.json") == {}


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    write(tmp_path / "index.html", "old")
    with pytest.raises(UnicodeEncodeError):
        write(tmp_path / "index.html", "new \ud800")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("index.html", "old")]
    assert (tmp_path / "index.html").stat().st_mode & 0o777 == 0o644


def test_the_program_writes_what_is_served(tmp_path: Path) -> None:
    published = {"schema": "cae.matrix/members/1", "name": "CAE", "hub": "hub.invalid", "signatures": {}}
    members = [member("hub.invalid", name="Pivot"), member("b.invalid", profile="internal")]
    signed = json.dumps({**published, "members": members}, indent=1)
    served = tmp_path / "served"
    served.mkdir()
    (tmp_path / "members.json").write_text(signed)
    (tmp_path / "page.css").write_text("p {}")
    given = {"members": f"{tmp_path}/members.json", "style": f"{tmp_path}/page.css", "directory": str(served)}
    (tmp_path / "directory.json").write_text(json.dumps(given | SETTINGS))
    command = [sys.executable, str(STATE), f"{tmp_path}/directory.json"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=patient(START))
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("Pivot (hub.invalid): ")
    assert (served / "members.json").read_text() == signed
    assert (served / "style.css").read_text() == "p {}"
    state = json.loads((served / "state.json").read_text())
    assert [one["state"] for one in state["members"]] == ["silent", "internal"]
    assert "<h1>CAE</h1>" in (served / "index.html").read_text()
    assert {path.name for path in served.iterdir()} == {"members.json", "style.css", "state.json", "index.html"}

    before = (served / "members.json").stat().st_mtime_ns
    assert subprocess.run(command, capture_output=True, timeout=patient(START)).returncode == 0
    assert (served / "members.json").stat().st_mtime_ns == before


# --- the page ---------------------------------------------------------------------------------------------------


def shown(seen: Seen, one: Mapping[str, str] | None = None, language: str = "fr", **settings: object) -> str:
    one = one or member()
    members = {"name": "Fédération des CAE", "hub": "hub.test", "members": [one]}
    state = state_document([one], {one["domain"]: seen}, {}, NOW)
    return page(members, state, {**SETTINGS, "language": language, **settings})


class Reader(html.parser.HTMLParser):
    """Reads a page strictly: what is opened is closed, in order."""

    EMPTY = ("meta", "link", "br", "img")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


HOSTILE = "<script>alert(1)</script>\"'&{0}{x}%s</table><!--"


@settings(deadline=None)
@given(some.text(min_size=1, max_size=30) | some.just(HOSTILE), some.sampled_from(["fr", "en"]))
def test_whatever_others_write_is_text(text: str, language: str) -> None:
    one = member(name=text, contact=text, logo=text, hostname=text)
    seen = Seen(
        "silent", {"kind": "status", "host": text, "status": 502}, [{"kind": "elsewhere", "host": text, "listed": text}]
    )
    read = Reader(shown(seen, one, language, space=text))
    plain = Reader(shown(seen, member(), language))
    assert read.tags.count("img") == 0
    assert [tag for tag in read.tags if tag != "a"] == [tag for tag in plain.tags if tag != "a"]
    assert {name for _, name, _ in read.attributes} <= {name for _, name, _ in plain.attributes} | {"href", "rel"}
    assert "".join(text.split()) in "".join(read.text.split())


def test_nothing_runs_and_nothing_of_others_is_loaded() -> None:
    logo = "data:image/svg+xml;base64,PHN2Zy8+"
    read = Reader(shown(Seen("answers"), member(logo=logo, contact="https://atelier.test/aide")))
    loaded = {(tag, value) for tag, name, value in read.attributes if name in ("src", "href") and tag != "a"}
    assert loaded == {("link", "style.css"), ("link", "data:,"), ("img", logo)}
    assert not {"script", "style", "iframe", "form", "object"} & set(read.tags)
    assert not [name for _, name, _ in read.attributes if name == "style" or name.startswith("on")]


@pytest.mark.parametrize(
    ("contact", "link"),
    [
        ("support@atelier.test", "mailto:support@atelier.test"),
        ("l'été?subject=x@atelier.test", "mailto:l%27%C3%A9t%C3%A9%3Fsubject%3Dx@atelier.test"),
        ("@aide:atelier.test", "matrix:u/aide:atelier.test"),
        ("https://atelier.test/a?b&c", "https://atelier.test/a?b&c"),
        ("javascript:alert(1)", None),
        ("data:text/html,x", None),
        ("http://atelier.test", None),
        ("", None),
    ],
)
def test_contacts_lead_where_a_list_may_lead(contact: str, link: str | None) -> None:
    read = Reader(shown(Seen("answers"), member(contact=contact)))
    links = [value for tag, name, value in read.attributes if (tag, name) == ("a", "href")]
    assert links == ([link] if link else []) + ["members.json", "state.json"]
    assert contact in read.text


def test_people_read_how_many_answer_and_when_that_was_seen() -> None:
    members = [member("hub.test", name="Pivot"), member("b.test"), member("c.test", profile="internal")]
    seen = {
        "hub.test": Seen("answers"),
        "b.test": Seen("silent", {"kind": "refused", "host": "b.test"}),
        "c.test": Seen("internal"),
    }
    listed = {"name": "CAE", "hub": "hub.test", "members": members}
    state = state_document(members, seen, {}, NOW)
    text = " ".join(Reader(page(listed, state, SETTINGS)).text.split())
    assert "1 sur 2 répondent." in text
    assert re.search(r"Vu le 2[23] novembre 2026 à \d\d? h \d\d \(\w+\)", text)
    assert "l’espace #federation:hub.test" in text
    assert "serveur commun de la fédération" in text
    assert "Atelier : Ne répond pas : b.test refuse la connexion." in text
    english = " ".join(Reader(page(listed, state, {**SETTINGS, "language": "en"})).text.split())
    assert "1 of 2 answer." in english
    assert "b.test refuses the connection" in english


def test_both_languages_say_the_same_things() -> None:
    for table in (federation_page._WORDS, federation_page._PROBLEMS):
        assert set(table["fr"]) == set(table["en"])
        for key, french in table["fr"].items():
            assert re.findall(r"{\w+}", table["en"][key]) or not re.findall(r"{\w+}", french), key
            assert sorted(re.findall(r"{\w+}", table["en"][key])) == sorted(re.findall(r"{\w+}", french)), key


def test_every_way_not_to_answer_has_words_or_is_no_answer_of_a_matrix_server() -> None:
    kinds = set(re.findall(r"[a-z]+(?:-[a-z]+)*", (Unreachable.__doc__ or "").partition("Kinds:")[2]))
    without = kinds - set(federation_page._PROBLEMS["fr"])
    assert without == {
        "bad-url", "tls-certificate", "tls-protocol", "tls-not-spoken", "not-http", "too-large", "too-many-redirects",
        "redirect-to-http", "not-json", "bad-ca-file",
    }  # fmt: skip


def test_doctests() -> None:
    assert doctest.testmod(federation_page, raise_on_error=True).attempted >= 1
    assert public_client.PublicClient is PublicClient
