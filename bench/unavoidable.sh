#!/bin/bash
# Only what cannot be avoided, as somebody would type it who knows every answer beforehand: what a first run of the
# playbook is measured against. Runs on the same bare image, with the same packages, the same wheels and the same
# configuration, which bench/figures.py took from a machine that the playbook had brought up.
# usage: unavoidable.sh DIRECTORY, which holds: facts.sh packages configuration.tar ca.pem element.tar.gz
# element.asc element.gpg
set -euo pipefail
cd "$1"
. ./facts.sh # instance domain matrix_hostname user database venv element_dir element_sha256

apt-get -qq update
# shellcheck disable=SC2046  # a list of words
DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends $(cat packages) >/dev/null

useradd --system --no-create-home --home-dir "/var/lib/matrix/$instance" --shell /usr/sbin/nologin "$user"
usermod --append --groups "$user" www-data
tar --extract --preserve-permissions --file configuration.tar --directory /
install -d -m 755 /var/lib/matrix /opt/matrix /opt/matrix/synapse /opt/matrix/element-web
install -d -m 700 -o "$user" -g "$user" "/var/lib/matrix/$instance"
install -d -m 750 -o "$user" -g "$user" "/var/lib/matrix/$instance/media"

umask 022
/usr/bin/python3 -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --no-cache-dir \
    --require-hashes --only-binary :all: --requirement "$venv.sources/requirements.txt"
cp -R "$venv.sources/site-packages/." "$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
"$venv/bin/python" -c 'import cae_matrix_opt_in'

echo "$element_sha256  element.tar.gz" | sha256sum --check --quiet
gpgv --quiet --keyring ./element.gpg element.asc element.tar.gz 2>/dev/null
install -d "$element_dir"
tar --extract --no-same-owner --strip-components 1 --file element.tar.gz --directory "$element_dir"

systemctl restart postgresql
runuser -u postgres -- psql --quiet --set ON_ERROR_STOP=1 <<SQL
CREATE ROLE matrix_instances NOLOGIN;
CREATE ROLE "$database" LOGIN IN ROLE matrix_instances;
CREATE DATABASE "$database" OWNER "$database" ENCODING UTF8 LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0;
REVOKE ALL ON DATABASE "$database" FROM PUBLIC;
SQL
systemctl daemon-reload
systemctl --quiet enable --now "matrix-synapse@$instance.service"
systemctl reload-or-restart nginx

# The same health check: through nginx, and through Synapse down to the database.
deadline=$((SECONDS + 120))
until python3 - "$matrix_hostname" "/_matrix/client/v3/directory/room/%23health-check:$domain" ca.pem >health 2>&1 <<'PYTHON'; do
import http.client
import json
import socket
import ssl
import sys

hostname, path, ca = sys.argv[1:]
plain = socket.create_connection(("127.0.0.1", 443), timeout=5)
connection = http.client.HTTPConnection(hostname)
connection.sock = ssl.create_default_context(cafile=ca).wrap_socket(plain, server_hostname=hostname)
connection.request("GET", path)
answer = connection.getresponse().read()
if json.loads(answer).get("errcode") != "M_NOT_FOUND":
    sys.exit(answer.decode())
PYTHON
    if [ $SECONDS -gt $deadline ]; then
        cat health
        journalctl --unit "matrix-synapse@$instance.service" --no-pager --lines 50
        exit 1
    fi
done
