# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The sessions behind `make`: `make help` lists the usual ones, `.cache/nox/bin/nox -l` all.

antsibull-nox brings what every collection needs (antsibull-nox.toml). Its ansible-test sessions want ansible-core from
GitHub and containers from a registry, so `sanity` is our own; its ansible-lint and ruff make an environment each, where
ours use the controller's.
"""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import sys
import tarfile

import nox

ROOT = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "tests"))

import antsibull_nox
import antsibull_nox.sessions.collections
import environments
import parts

nox.options.default_venv_backend = "uv"
nox.options.envdir = ".cache/sessions"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["test"]
environments.prepare_uv()
os.environ.setdefault("GALAXY_IMPORTER_CONFIG", str(ROOT / "tests" / "galaxy-importer.cfg"))

antsibull_nox.load_antsibull_nox_toml()

ON = {core: [str(ROOT / "tests" / "on-core"), core] for core in parts.CORES}
DIRECTORIES = ["LICENSES", "changelogs", "docs", "inventories", "meta", "playbooks", "plugins", "roles"]
FILES = ["FILES.json", "LICENSE", "MANIFEST.json", "README.md", "REUSE.toml", "SECURITY.md", "requirements.yml"]
EXAMPLES = {
    "inventories/example_cooperative": ("cooperative", "verify", "registration_token", "audit", "remedy"),
    "inventories/example_federation_hub/hosts.yml": ("federation_hub",),
}


def run_all(session: nox.Session, *commands: list[str], **environment: str) -> None:
    """Each of them, also after one failed."""
    failed = 0
    for command in commands:
        try:
            session.run(*command, external=True, env=environment)
        except nox.command.CommandFailed:
            failed += 1
    if failed:
        session.error(f"{failed} of {len(commands)} failed")


def run_parts(session: nox.Session, cross: bool = False) -> None:
    try:
        passed = parts.main(session.posargs, cross)
    except parts.Wrong as wrong:
        session.error(str(wrong))
    if not passed:
        session.error("not all parts passed")


@nox.session(python=False)
def test(session: nox.Session) -> None:
    """Run all parts of the tests, or those named after `--`: what CI runs."""
    run_parts(session)


@nox.session(name="test-all", python=False)
def test_all(session: nox.Session) -> None:
    """Run every scenario with every core on every Debian, and all other parts with every core."""
    run_parts(session, cross=True)


@nox.session(python=False)
def unit(session: nox.Session) -> None:
    """Run pytest with what is named after `--`, in an environment that is made within seconds. No Docker."""
    core = os.environ.get("CORE", "2.19")
    environments.unit(core)
    session.run("tests/setup", "collection", external=True)
    python = ROOT / ".cache" / f"venv-unit-{core}" / "bin" / "python"
    session.run(str(python), "-m", "pytest", *session.posargs, external=True, env=parts.UNIT)


@nox.session(python=False)
def ruff(session: nox.Session) -> None:
    """Lint all Python."""
    session.run(*ON["2.19"], "ruff", "check", "--output-format", "concise", ".", external=True)


@nox.session(python=False)
def mypy(session: nox.Session) -> None:
    """Check the types of all Python. What is deployed apart is a world of its own, and so is each scenario's tests."""
    synapse = "roles/synapse/files"
    worlds = {
        "": ["plugins", "tests/unit", *map(str, pathlib.Path("tests").glob("*.py")), "tests/mutants/run"],
        f"{synapse}/opt_in": [f"{synapse}/opt_in/cae_matrix_opt_in"],
        f"{synapse}/federation": [f"{synapse}/federation/cae_matrix_federation"],
        f"{synapse}/service": [f"{synapse}/service/cae_matrix_service"],
        f"{synapse}/rehearsal": [f"{synapse}/rehearsal/cae_matrix_rehearsal"],
        "tests/browser": ["tests/browser"],
    }
    for tests in sorted(map(str, pathlib.Path("molecule").glob("*/tests"))):
        worlds[f"molecule/shared/tests:{tests}"] = [tests]
    commands = [
        ["env", f"MYPYPATH=.ansible/collections:{path}", *ON["2.19"], "mypy", *checked]
        for path, checked in worlds.items()
    ]
    # nox itself is in the environment that runs this.
    own = ["env", "MYPYPATH=tests", *ON["2.19"], "mypy", "--python-executable", sys.executable, "noxfile.py"]
    run_all(session, *commands, own)


@nox.session(name="ansible-lint", python=False)
def ansible_lint(session: nox.Session) -> None:
    """Lint all YAML of Ansible, in the strictest profile."""
    vault = "inventories/example_cooperative/vault-passphrase.txt"
    lint = ["ansible-lint", "--offline", "--strict", "--profile", "production", "--nocolor", "-f", "pep8"]
    session.run(*ON["2.19"], *lint, external=True, env={"ANSIBLE_VAULT_PASSWORD_FILE": vault})


@nox.session(python=False)
def package(session: nox.Session) -> None:
    """Build the tarball that ops teams get: it holds what it should, installs, and its playbooks are found by name."""
    work = pathlib.Path(session.create_tmp()).resolve()
    shutil.rmtree(work)
    galaxy = [*ON["2.19"], "ansible-galaxy", "collection"]
    session.run(*galaxy, "build", "--force", "--output-path", str(work), external=True, silent=True)
    (archive,) = work.glob("cae-matrix-*.tar.gz")
    with tarfile.open(archive) as opened:
        held = sorted({name.partition("/")[0] for name in opened.getnames()})
    # The first release makes the changelog.
    changelog = [name for name in ("CHANGELOG.md",) if (ROOT / name).exists()]
    if held != sorted(FILES + DIRECTORIES + changelog):
        session.error(f"galaxy.yml: the tarball holds {' '.join(held)}")
    place = str(work / "collections")
    install = ["install", "--no-deps", "--offline", "--force", "-p", place, str(archive)]
    session.run(*galaxy, *install, external=True, silent=True, env={"ANSIBLE_COLLECTIONS_PATH": place})
    commands = []
    for inventory, playbooks in EXAMPLES.items():
        vault = ["--vault-password-file", f"{inventory.removesuffix('/hosts.yml')}/vault-passphrase.txt"]
        named = [f"cae.matrix.{playbook}" for playbook in playbooks]
        play = ["ansible-playbook", "-i", inventory, *named, "--syntax-check", *vault]
        commands += [[*ON[core], *play] for core in parts.CORES]
    run_all(session, *commands, ANSIBLE_COLLECTIONS_PATH=place)


@nox.session
def sanity(session: nox.Session) -> None:
    """Run ansible-test sanity in virtual environments, with the ansible-core of the 2.19 controller."""
    session.install("pip", "ansible", "-c", "requirements-dev-2.19.txt")
    setup = antsibull_nox.sessions.collections.prepare_collections(
        session, install_in_site_packages=False, install_out_of_tree=True
    )
    if not setup:
        return
    # ansible-test fetches pip from a server of its own, unless it did before; Python brings one along.
    home = pathlib.Path(session.create_tmp()).resolve()
    get_pip = home / ".ansible" / "test" / "cache" / "get_pip_24_2.py"
    get_pip.parent.mkdir(parents=True, exist_ok=True)
    get_pip.write_text("import ensurepip\nensurepip.bootstrap()\n")
    with session.chdir(setup.current_path):
        environment = {"ANSIBLE_COLLECTIONS_PATH": str(setup.current_place), "HOME": str(home)}
        session.run("ansible-test", "sanity", "--venv", *session.posargs, env=environment)


@nox.session(python=False)
def lock(_session: nox.Session) -> None:
    """Pin all requirements anew."""
    environments.lock()


@nox.session(python=False)
def changelog(session: nox.Session) -> None:
    """See that a release can make its changelog of the fragments."""
    session.run(*ON["2.19"], "antsibull-changelog", "lint", external=True)


@nox.session(python=False)
def release(session: nox.Session) -> None:
    """Make the version after `--`: changelog, commit, tag and tarball. Nothing is pushed or published."""

    def git(*arguments: str) -> str:
        return str(session.run("git", *arguments, external=True, silent=True, log=False)).strip()

    version = session.posargs[0] if session.posargs else ""
    if not re.fullmatch(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)", version):
        session.error(f"VERSION is {version!r}: name one like 0.2.0, as in `make release VERSION=0.2.0`")
    if (branch := git("rev-parse", "--abbrev-ref", "HEAD")) != "main":
        session.error(f"this is the branch {branch}: a release is made on main")
    if git("status", "--porcelain"):
        session.error("there are changes that are not committed: commit them, or put them aside")
    if git("tag", "--list", version):
        session.error(f"the tag {version} is there already: a version is released once")
    galaxy = ROOT / "galaxy.yml"
    text, found = re.subn(r"(?m)^version: .*$", f"version: {version}", galaxy.read_text())
    if found != 1:
        session.error("galaxy.yml has no line `version:`")
    try:
        galaxy.write_text(text)
        session.run(*ON["2.19"], "antsibull-changelog", "release", "--version", version, external=True)
        build = ["ansible-galaxy", "collection", "build", "--force", "--output-path", ".cache/release"]
        session.run(*ON["2.19"], *build, external=True)
        git("add", "--all", "galaxy.yml", "CHANGELOG.md", "changelogs")
        git("commit", "--quiet", "--message", f"Release {version}")
    except BaseException:
        # As it was before: the checkout was clean.
        git("reset", "--hard", "--quiet")
        git("clean", "--force", "--quiet", "CHANGELOG.md", "changelogs")
        raise
    git("tag", "--annotate", version, "--message", f"cae.matrix {version}")
    session.log(
        f"the tarball is .cache/release/cae-matrix-{version}.tar.gz; main and the tag {version} are yours to push"
    )


@nox.session(name="release-check", python=False)
def release_check(session: nox.Session) -> None:
    """Make a release in a clone of what is committed, and see that the same version is not made twice."""
    # Beside it lie the temporary files of what runs there, which must not be in the checkout.
    work = pathlib.Path(session.create_tmp()).resolve() / "clone"
    shutil.rmtree(work, ignore_errors=True)

    def git(*arguments: str) -> str:
        return str(session.run("git", "-C", str(work), *arguments, external=True, silent=True, log=False)).strip()

    session.run("git", "clone", "--quiet", "--no-tags", str(ROOT), str(work), external=True)
    git("checkout", "--quiet", "-B", "main")
    git("config", "user.name", "release-check")
    git("config", "user.email", "release-check@example.org")
    (work / ".venv-2.19").symlink_to(ROOT / ".venv-2.19")
    nox_release = [sys.executable, "-m", "nox", "-f", str(work / "noxfile.py"), "-s", "release", "--", "9.9.9"]
    session.run(*nox_release, external=True, silent=True)
    if git("describe", "--exact-match") != "9.9.9" or git("status", "--porcelain"):
        session.error("the release is not what is tagged")
    if "9.9.9" not in (work / "CHANGELOG.md").read_text().replace("\\", ""):
        session.error("CHANGELOG.md does not name the release")
    if not (work / ".cache" / "release" / "cae-matrix-9.9.9.tar.gz").exists():
        session.error("there is no tarball")
    again = str(session.run(*nox_release, external=True, silent=True, success_codes=[1]))
    if "a version is released once" not in again:
        session.error("the same version was made twice, or refused for another reason")


@nox.session(name="mutants-check", python=False)
def mutants_check(session: nox.Session) -> None:
    """See that the mutants still apply, and that the tests that find them are there."""
    session.run("tests/mutants/run", "--check", external=True)


@nox.session(python=False)
def mutants(session: nox.Session) -> None:
    """Break the collection's promises one by one, and see that tests notice: half an hour; tests/mutants/README.md."""
    session.run(*ON["2.19"], "tests/mutants/run", *session.posargs, external=True)


@nox.session(python=False)
def forges(_session: nox.Session) -> None:
    """Write the parts of the table into the CI files of GitHub, Forgejo and GitLab."""
    parts.write_forges()
