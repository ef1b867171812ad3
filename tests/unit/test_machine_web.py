# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a machine serves already, as a real nginx says it, and what stands in the way of one more site."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.cae.matrix.plugins.module_utils.host import machine_web
from ansible_collections.cae.matrix.plugins.module_utils.host.nginx_configuration import claims, configuration
from ansible_collections.cae.matrix.plugins.module_utils.host.web_plan import bucket, plan
from ansible_collections.cae.matrix.tests.unit.nginx import Nginx

DOMAIN, HOSTNAME, ELEMENT = "coop.test", "matrix.coop.test", "chat.coop.test"
NAMES = [DOMAIN, HOSTNAME, ELEMENT]
DEFAULT_SITE = """
# Debian's, without its comments.
server {
    listen 80 default_server;
    listen [::]:80 default_server;
    root /var/www/html;
    server_name _;
}
"""
OWN_SITE = "# Written by cae.matrix for instance {0} (x).\nserver {{ listen 80; server_name {1}; return 404; }}\n"
BARE: dict[str, Any] = {"ipv6": True, "addresses": ["192.0.2.7"], "ports": {}, "site": "", "nginx": {}}


def declared(**changes: Any) -> dict[str, Any]:
    return {
        "mode": "nginx",
        "names": NAMES,
        "names_taken": [],
        "domain": DOMAIN,
        "hostname": HOSTNAME,
        "element": ELEMENT,
        "proxy_user": "www-data",
        "acme_email": "",
        "trusted_proxies": [],
    } | changes


def seen(nginx: Nginx, names: list[str] = NAMES) -> dict[str, Any]:
    return BARE | {
        "nginx": machine_web.nginx("nginx", "coop", names, nginx),
        "site": machine_web.foreign_site("coop", nginx.root),
    }


def problems(web: dict[str, Any], **changes: Any) -> list[str]:
    found: list[str] = plan(web, declared(**changes))["problems"]
    return found


@pytest.fixture
def nginx(tmp_path: Path) -> Nginx:
    made = Nginx(tmp_path)
    made.site("sites-enabled/default", DEFAULT_SITE)
    return made


def test_debians_default_site_is_in_nobodys_way(nginx: Nginx) -> None:
    web = seen(nginx)
    assert web["nginx"]["version"]
    assert problems(web) == []


@pytest.mark.parametrize(
    ("site", "line"),
    [
        ("server { listen 80; listen 443; server_name coop.test; }", 1),
        ("server { listen 80; server_name coop.test; }", 1),
        ("server {\n  # server_name other.test;\n  server_name coop.test;\n}", 3),
        ("server {\n  listen 443;\n  server_name www.coop.test\n    'COOP.test';\n}", 3),
        ('server { listen 443; server_name "~x"; server_name www.coop.test .coop.test; }', 1),
        ("server { listen [::]:443; server_name coop.test; }", 1),
        ("server { listen 127.0.0.1:443; server_name coop.test; }", 1),
        ("server { listen *:80; server_name a.test coop.test b.test; }", 1),
    ],
)
def test_a_website_of_ours_is_refused_with_file_and_line(nginx: Nginx, site: str, line: int) -> None:
    nginx.site("sites-enabled/zzz.conf", site)
    found = problems(seen(nginx), names=[DOMAIN])
    assert len(found) == 1, found
    assert found[0].startswith(f"/etc/nginx/sites-enabled/zzz.conf:{line}: ")
    assert "serves coop.test: set reverse_proxy_well_known: elsewhere" in found[0]


@pytest.mark.parametrize(
    "site",
    [
        "server { listen 8080; server_name coop.test; }",
        "server { listen 127.0.0.1:80; server_name status; }",
        "server { listen 443 default_server; server_name www.coop.test coop.test.example; return 404; }",
        "server { listen unix:/run/x.sock; server_name coop.test; }",
        "server { listen 80; server_name ~^.+\\.other\\.test$ *.other.test other.*; }",
        "server { listen 80; }",
        "# server { server_name coop.test; }\nmap $host $x { default 'server_name coop.test; }'; }",
    ],
)
def test_other_sites_are_none_of_our_business(nginx: Nginx, site: str) -> None:
    nginx.site("conf.d/other.conf", site)
    assert problems(seen(nginx)) == []


def test_a_name_in_a_file_that_is_included_from_a_server(nginx: Nginx) -> None:
    nginx.site("names", "\n\nserver_name chat.coop.test;")
    nginx.site("conf.d/other.conf", "server { listen 443; include names; }")
    (found,) = problems(seen(nginx))
    assert found.startswith("/etc/nginx/names:3: ")
    assert "give element_hostname another name" in found


@pytest.mark.parametrize("word", ["*.coop.test", "~^(?<sub>matrix|x)\\.coop\\.test$", "matrix.coop.*"])
def test_a_wildcard_gives_a_name_up_only_if_it_is_asked_to(nginx: Nginx, word: str) -> None:
    nginx.site("sites-enabled/www", f"server {{ listen 443; server_name {word}; }}")
    web = seen(nginx, [HOSTNAME])
    (found,) = problems(web, names=[HOSTNAME])
    assert f"serves matrix.coop.test by `{word}`" in found
    assert "reverse_proxy_names_taken" in found
    assert problems(web, names=[HOSTNAME], names_taken=[HOSTNAME]) == []
    # Set up by an older version of the collection: it goes on.
    nginx.site("sites-enabled/matrix-coop.conf", OWN_SITE.format("coop", HOSTNAME))
    assert problems(seen(nginx, [HOSTNAME]), names=[HOSTNAME]) == []


def test_an_exact_name_is_never_shared(nginx: Nginx) -> None:
    nginx.site("sites-enabled/matrix-coop.conf", OWN_SITE.format("coop", DOMAIN))
    assert problems(seen(nginx)) == []
    nginx.site("sites-enabled/www", "server { server_name coop.test; }")
    assert len(problems(seen(nginx), names_taken=NAMES)) == 1
    assert problems(seen(nginx), names=[HOSTNAME, ELEMENT]) == [], "the website is elsewhere"
    assert problems(seen(nginx), mode="external") == []


def test_a_neighbour_is_named(nginx: Nginx) -> None:
    nginx.site("sites-enabled/matrix-fabrique.conf", OWN_SITE.format("fabrique", ELEMENT))
    (found,) = problems(seen(nginx))
    assert 'the instance "fabrique" of this machine serves chat.coop.test as well: give element_hostname' in found


@pytest.mark.parametrize("directory", ["available", "enabled"])
def test_a_file_with_the_name_of_our_site_is_not_ours_by_that(nginx: Nginx, directory: str) -> None:
    nginx.site(f"sites-{directory}/matrix-coop.conf", "server { server_name shop.test; }")
    (found,) = problems(seen(nginx))
    assert "was not written by cae.matrix: move it away" in found
    assert f"sites-{directory}/matrix-coop.conf" in found


def read(main: str) -> dict[str, Any]:
    """What cannot be tried with an nginx that opens what it reads of."""
    dump = f"# configuration file /etc/nginx/nginx.conf:\n{main}\n"
    return BARE | {"nginx": machine_web.describe(configuration(dump), "coop", NAMES, {}) | {"sites": True}}


def test_a_site_for_the_only_address_hides_ours() -> None:
    web = read("http { server { listen 192.0.2.7:443; server_name www.test; } }")
    (found,) = problems(web)
    assert "/etc/nginx/nginx.conf:1: `listen 192.0.2.7:443` is for the only address of this machine" in found
    assert problems(web | {"addresses": ["192.0.2.7", "192.0.2.8"]}) == []
    assert problems(web | {"addresses": ["192.0.2.9"]}) == []


def test_one_socket_for_both_families(nginx: Nginx) -> None:
    nginx.site("sites-enabled/www", "server { listen [::]:443 ipv6only=off; server_name www.test; }")
    (found,) = problems(seen(nginx))
    assert "take ipv6only=off out" in found


def test_streams_have_the_port() -> None:
    (found,) = problems(read("http {}\nstream { server {\n listen 443;\n proxy_pass a:1; } }"))
    assert found.startswith("/etc/nginx/nginx.conf:3: nginx's stream module has port 443")


@pytest.mark.parametrize(
    ("name", "text", "named"),
    [
        ("sites-enabled/shop", "server {\n lisen 80; }", "/etc/nginx/sites-enabled/shop:2"),
        ("conf.d/shop.conf", "server { listen 443 ssl; ssl_certificate /nowhere.pem; }", "nowhere.pem"),
    ],
)
def test_what_is_broken_before_is_said_before(nginx: Nginx, name: str, text: str, named: str) -> None:
    nginx.site(name, text)
    (found,) = problems(seen(nginx))
    assert found.startswith("nginx refuses its configuration as it is: ")
    assert named in found
    assert "[emerg]" not in found


def test_what_is_broken_in_our_own_site_is_put_right_by_the_run(nginx: Nginx) -> None:
    nginx.site("sites-enabled/matrix-coop.conf", OWN_SITE.format("coop", DOMAIN) + "by hand\n")
    assert problems(seen(nginx)) == []


def test_an_nginx_of_another_packager(tmp_path: Path) -> None:
    found = problems(seen(Nginx(tmp_path, user="daemon", sites="")))
    assert len(found) == 2
    assert "include /etc/nginx/sites-enabled/*.conf;" in found[0]
    assert "set machine_proxy_user: daemon" in found[1]
    assert problems(seen(Nginx(tmp_path / "other", user="daemon")), proxy_user="daemon") == []


def test_the_table_of_names_is_made_large_enough(nginx: Nginx) -> None:
    for length, expected in ((46, 0), (47, 128), (110, 128), (111, 256), (253, 512)):
        name = (("a" * 60 + ".") * 5)[: length - 2] + ".t" if length > 60 else "a" * (length - 5) + ".test"
        assert len(name) == length
        assert bucket(seen(nginx), [name]) == (expected, [])
        nginx.site("conf.d/try.conf", f"server {{ server_name {name}; }}")
        assert nginx(["nginx", "-t"])[0] == (1 if expected else 0), "nginx draws the line elsewhere"
        if expected:
            nginx.site("conf.d/cae-matrix.conf", f"server_names_hash_bucket_size {expected};")
            assert nginx(["nginx", "-t"])[0] == 0
            assert bucket(seen(nginx), ["short.test"])[0] == expected, "a neighbour's need does not shrink it"
            (nginx.root / "etc/nginx/conf.d/cae-matrix.conf").unlink()
        (nginx.root / "etc/nginx/conf.d/try.conf").unlink()


def test_a_table_that_somebody_else_has_sized(nginx: Nginx) -> None:
    nginx.site("conf.d/own.conf", "\nserver_names_hash_bucket_size 64;")
    assert bucket(seen(nginx), ["a" * 46]) == (0, [])
    size, (text,) = bucket(seen(nginx), ["a" * 60])
    assert size == 0
    assert text.startswith("/etc/nginx/conf.d/own.conf:2: server_names_hash_bucket_size 64 is too small")


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("$hostname", "box.test", "exact"),
        ("Coop.Test", "coop.test", "exact"),
        ("~^COOP", "coop.test", "pattern"),
        ("~(", "coop.test", ""),
        ("", "coop.test", ""),
        ("_", "coop.test", ""),
        ("*", "coop.test", ""),
        (".test", "coop.test", "pattern"),
        ("*.test", "a.coop.test", "pattern"),
        ("*.coop.test", "coop.test", ""),
        ("*.coop.test", "xcoop.test", ""),
        ("coop.*", "coop.test", "pattern"),
        ("coop.*", "xcoop.test", ""),
    ],
)
def test_words_of_server_name(pattern: str, name: str, expected: str) -> None:
    assert claims(pattern, name, "BOX.test") == expected


def test_lua_is_not_taken_for_nginx() -> None:
    dump = (
        "# configuration file /etc/nginx/nginx.conf:\nhttp {\n server { content_by_lua_block {\n"
        "  local t = {a = {}}; server_name coop.test;\n }\n }\n server_name x; server {\n server_name y.test; } }\n"
    )
    servers = configuration(dump).servers
    assert [(name, directive.line) for server in servers for name, directive in server.names] == [("y.test", 7)]


# --- who holds the ports -----------------------------------------------------------------------------------------


HOLD = """
import socket, sys
family, address = (socket.AF_INET6, "::1") if sys.argv[1] == "6" else (socket.AF_INET, "127.0.0.1")
with socket.socket(family) as server:
    server.bind((address, 0))
    server.listen()
    print(server.getsockname()[1], flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("family", ["4", "6"])
def test_the_program_on_a_port_is_named(monkeypatch: pytest.MonkeyPatch, family: str) -> None:
    if family == "6" and not machine_web.ipv6():
        pytest.skip("no IPv6 here")
    command = [sys.executable, "-c", HOLD, family]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        port = int(process.stdout.readline())
        monkeypatch.setattr(machine_web, "PORTS", (port,))
        comm = Path(f"/proc/{process.pid}/comm").read_text().strip()
        assert machine_web.holders(Path("/"), "/usr/sbin/nginx") == {port: f"{comm} (process {process.pid})"}
        # The machine's own nginx is in nobody's way.
        assert machine_web.holders(Path("/"), os.readlink(f"/proc/{process.pid}/exe")) == {}
        process.communicate("")
        assert machine_web.holders(Path("/"), "/usr/sbin/nginx") == {}


def test_a_connection_to_a_port_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        monkeypatch.setattr(machine_web, "PORTS", (client.getsockname()[1],))
        assert machine_web.holders(Path("/")) == {}


def test_ports_are_refused_with_the_program_and_the_way_out() -> None:
    (found,) = problems(BARE | {"ports": {"443": "apache2 (process 7)", "80": "apache2 (process 7)"}})
    assert found.startswith("ports 80 and 443 of this machine: held by apache2 (process 7)")
    assert "reverse_proxy_mode: external" in found
    assert problems(BARE | {"ports": {"80": "apache2 (process 7)"}}, mode="external") == []


def test_a_machine_without_ipv6() -> None:
    (found,) = problems(BARE | {"ipv6": False})
    assert "touch /etc/nginx/sites-enabled/default" in found
    broken = {"broken": "socket() [::]:80 failed (97: Address family not supported by protocol)"}
    (found,) = problems(BARE | {"ipv6": False, "nginx": broken})
    assert "take the lines `listen [::]…` out" in found


def test_addresses_that_others_can_reach(tmp_path: Path) -> None:
    net = tmp_path / "proc/net"
    net.mkdir(parents=True)
    (net / "fib_trie").write_text(
        "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.0.0.0\n        /24 link UNICAST\n     |-- 10.0.0.7\n"
        "        /32 host LOCAL\n     |-- 127.0.0.1\n        /32 host LOCAL\n     |-- 10.0.0.255\n"
        "        /32 link BROADCAST\n"
    )
    (net / "if_inet6").write_text(
        "20010db8000000000000000000000007 02 40 00 80 eth0\nfe800000000000000000000000000007 02 40 20 80 eth0\n"
        "00000000000000000000000000000001 01 80 10 80 lo\n"
    )
    assert machine_web.addresses(tmp_path) == ["10.0.0.7", "2001:db8::7"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"acme_email": "aide @coop.test"}, 'reverse_proxy_acme_email: "aide @coop.test" is no address'),
        ({"acme_email": "aide"}, "reverse_proxy_acme_email"),
        ({"trusted_proxies": ["10.0.0.1/8"]}, 'reverse_proxy_trusted_proxies: "10.0.0.1/8" is no address'),
        ({"trusted_proxies": ["proxy.coop.test"]}, "reverse_proxy_trusted_proxies"),
        ({"trusted_proxies": ["0.0.0.0/0"]}, "is everybody"),
        ({"trusted_proxies": ["::/0"]}, "is everybody"),
    ],
)
def test_variables(changes: dict[str, Any], words: str) -> None:
    (found,) = problems({}, **changes)
    assert words in found


def test_good_variables() -> None:
    good = {"acme_email": "aide+matrix@coop.test", "trusted_proxies": ["192.0.2.7", "2001:db8::/32", "10.0.0.0/8"]}
    assert problems({}, **good) == []
