# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A real nginx that reads a configuration of its own, laid out as Debian's is, and believes it to be /etc/nginx."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from ansible_collections.cae.matrix.tests.unit.programs import program

MAIN = """
user {user};
pid {root}/pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {root}/t; proxy_temp_path {root}/t; fastcgi_temp_path {root}/t;
    uwsgi_temp_path {root}/t; scgi_temp_path {root}/t;
    include {root}/etc/nginx/conf.d/*.conf;
    {sites}
}}
{more}
"""
SITES = "include {root}/etc/nginx/sites-enabled/*;"


class Nginx:
    """Called as C(machine_web) calls programs: status, output, errors."""

    def __init__(self, root: Path, user: str = "www-data", sites: str = SITES, more: str = "") -> None:
        self.root, self.program = root, program("nginx", "nginx")
        for name in ("conf.d", "sites-enabled", "sites-available"):
            (root / "etc/nginx" / name).mkdir(parents=True)
        main = MAIN.format(root=root, user=user, sites=sites.format(root=root), more=more.format(root=root))
        (root / "etc/nginx/nginx.conf").write_text(main)

    def site(self, name: str, text: str) -> None:
        (self.root / "etc/nginx" / name).write_text(text)

    def __call__(self, command: Sequence[str]) -> tuple[int, str, str]:
        own = ["-p", f"{self.root}/etc/nginx", "-c", f"{self.root}/etc/nginx/nginx.conf"]
        done = subprocess.run([self.program, *command[1:], *own], capture_output=True, text=True, check=False)
        status, *said = done.returncode, *(text.replace(str(self.root), "") for text in (done.stdout, done.stderr))
        return status, said[0], said[1]
