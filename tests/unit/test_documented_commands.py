# Copyright: cae.matrix contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Every command that our pages show works as it stands there, and what they name is there.

What needs no machine runs for real, in a clean home, with an example's passphrase typed when it is asked for. A
playbook is not run, but all that comes before its first connection is: options, inventories, the vault, the name. What
is for a machine runs on one (molecule/shared/tests/test_documented.py), what is for `make` is a target.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.cae.matrix.tests.unit import documentation
from ansible_collections.cae.matrix.tests.unit.documentation import Block, Command
from ansible_collections.cae.matrix.tests.unit.programs import lacking
from ansible_collections.cae.matrix.tests.unit.terminal import typed

ROOT = documentation.ROOT
BIN = Path(sys.executable).parent
PASSPHRASE = "demonstration-only"
# What a block shows that is neither a command nor configuration begins so.
SHOWN = (
    *(
        "INSTANCE  VERDICT",
        "inventory ──▶",
        "the list of members ──▶",
        "liste des membres ──▶",
        "2026-",
        "/srv/inventories/",
    ),
    *(
        "This run would cut people off",
        "Who reaches whom:",
        "atelier.test: 35 checks",
        "CREATE ROLE ",
        "federation_members: https",
    ),
)
# Run on a machine by molecule/shared/tests, or looked at below.
ON_A_MACHINE = ("psql", "pg_restore", "python3")
IN_THE_CHECKOUT = ("make", "tests/molecule-run")
HERE = ("ansible-galaxy", "ansible-playbook", "ansible-vault", "cd", "cp", "mkdir", "mv")


def known_programs() -> tuple[str, ...]:
    return (*ON_A_MACHINE, *IN_THE_CHECKOUT, *HERE)


def is_commands(block: Block) -> bool:
    first = next(documentation.commands(block), None)
    return block.language in documentation.SHELL or (
        not block.language and first is not None and first.parts[0][:1] != [] and first.parts[0][0] in known_programs()
    )


@functools.cache
def every_block() -> list[Block]:
    return [block for page in documentation.pages() for block in documentation.blocks(page)]


@functools.cache
def every_command() -> list[Command]:
    return [command for block in every_block() if is_commands(block) for command in documentation.commands(block)]


def of(*programs: str) -> dict[str, Command]:
    """Each command of these programs once, with the first page that has it."""
    found: dict[str, Command] = {}
    for command in every_command():
        if any(part[0] in programs for part in command.parts):
            found.setdefault(command.text, command)
    return found


# --- what is there ----------------------------------------------------------------------------------------------


def test_every_block_is_understood() -> None:
    """A new kind of command, or of output, has to say here what it is."""
    for block in every_block():
        if is_commands(block):
            for command in documentation.commands(block):
                for part in command.parts:
                    assert part[0] in known_programs(), f"{block.where}: how is {part[0]} tried?"
        elif not block.language and not block.text.startswith(SHOWN):
            assert isinstance(yaml.safe_load(block.text), dict), f"{block.where}: neither commands nor configuration"


def test_commands_were_found() -> None:
    """In each way in which pages show them."""
    texts = {command.text for command in every_command()}
    assert "make test" in texts
    assert "ansible-playbook -i inventories/atelier --ask-vault-pass cae.matrix.audit" in texts
    assert any(text.startswith("python3 - atelier") and text.endswith("\nEOF") for text in texts)
    assert any("--vault-id atelier@prompt" in text and "\\" not in text for text in texts)
    assert len(texts) > 30


def pairs() -> Iterator[tuple[str, str]]:
    """The pages in both languages, as the README names them side by side."""
    for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines():
        english, french = re.findall(r"\(docs/en/([\w-]+\.md)\)", line), re.findall(r"\(docs/fr/([\w-]+\.md)\)", line)
        if english and french:
            yield english[0], french[0]


def test_both_languages_have_the_same_commands() -> None:
    assert {english for english, _ in pairs()} == {path.name for path in ROOT.glob("docs/en/*.md")}
    assert {french for _, french in pairs()} == {path.name for path in ROOT.glob("docs/fr/*.md")}
    for english, french in sorted(set(pairs())):
        both = [
            [command.text for command in every_command() if command.block.page == ROOT / "docs" / page]
            for page in (f"en/{english}", f"fr/{french}")
        ]
        assert both[0] == both[1], f"{english} and {french}"


# --- commands of an ops team ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Somebody's home, with a checkout of the collection in it and nothing else."""
    home = tmp_path_factory.mktemp("home")
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    for name in filter(None, files.split("\0")):
        # One that is about to be removed is listed still.
        if (ROOT / name).exists() and not name.startswith(("molecule/", "tests/")):
            (home / "checkout" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, home / "checkout" / name, follow_symlinks=False)
    if not (home / "checkout").exists():
        lacking("no git checkout")
    return home


def environment(home: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "PYTHONPATH"))}
    # No server is asked: what the collection needs comes with the package `ansible`.
    return kept | {
        "HOME": str(home),
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "ANSIBLE_GALAXY_SERVER": "http://127.0.0.1:9/",
        "ANSIBLE_NOCOLOR": "1",
        "EDITOR": "sh -c 'echo vault_x: y >$0'",
        "PAGER": "cat",
    }


def run(command: str, place: Path, home: Path) -> str:
    status, shown = typed(command, place, environment(home), PASSPHRASE)
    assert status == 0, f"{command}\n{shown}"
    assert "WARNING" not in shown, f"{command}\n{shown}"
    return shown


@pytest.fixture(scope="module")
def matrix(home: Path) -> Path:
    """The ops team's own directory, made by the commands of the page "getting started", word by word."""
    if not list(BIN.parent.glob("lib/python3*/site-packages/ansible_collections/community/postgresql")):
        lacking("no package ansible beside ansible-core, with the collections that ours needs: pip install ansible")
    page = ROOT / "docs/en/getting-started.md"
    said = [command.text for command in every_command() if command.block.page == page]
    set_up = said[: said.index("cd ~/matrix") + 2]
    assert set_up[-1].startswith("ansible-galaxy collection install"), set_up
    run("\n".join(set_up), home / "checkout", home)
    # A second time, after a new version.
    run("\n".join(line for line in set_up if "cp -r" not in line), home / "checkout", home)
    assert (home / ".ansible/collections/ansible_collections/cae/matrix/MANIFEST.json").exists()
    assert not (home / "checkout/.ansible").exists(), "installed into the checkout"
    # What other pages take for granted: more cooperatives, each with a copy of its own.
    example = home / "checkout/inventories/example_cooperative"
    for name in ("fabrique", "nord"):
        copy = home / "matrix/inventories" / name
        shutil.copytree(example, copy)
        (copy / "host_vars/atelier").rename(copy / "host_vars" / name)
        for file in (copy / "hosts.yml", copy / "host_vars" / name / "main.yml"):
            file.write_text(file.read_text().replace("atelier", name))
    (home / ".matrix-vault").write_text(f"{PASSPHRASE}\n")
    for command in of("cp").values():
        if command.block.page == ROOT / "docs/en/federation.md":
            run(command.text, home / "matrix", home)
    return home / "matrix"


def test_the_readme_sets_up_as_getting_started_does(matrix: Path) -> None:
    said = [command.text for command in every_command() if command.block.page == ROOT / "README.md"]
    started = [command.text for command in every_command() if command.block.page == ROOT / "docs/en/getting-started.md"]
    assert [text for text in said if not text.startswith(("make ", "ansible-playbook"))] == started[:6]


def test_playbooks_are_found_with_options_and_inventories_as_they_are_written(matrix: Path, home: Path) -> None:
    """Up to the first connection. With --ask-vault-pass somebody types, with a file nobody does."""
    listed = of("ansible-playbook")
    assert len(listed) >= 15

    def look(command: Command) -> str:
        shown = run(f"{command.text} --list-hosts", matrix, home)
        assert re.search(r"hosts \([1-9]\d*\):", shown), f"{command.where}: {command.text} is for nobody"
        return shown

    with ThreadPoolExecutor(2) as several:
        list(several.map(look, listed.values()))


def inventory_options(words: list[str]) -> str:
    """What a command says about inventories and the vault."""
    found: list[str] = []
    for number, word in enumerate(words):
        if word in ("-i", "--vault-id", "--vault-password-file"):
            found += [word, words[number + 1]]
        elif word == "--ask-vault-pass":
            found.append(word)
    return shlex.join(found).replace(shlex.quote("~/.matrix-vault"), "~/.matrix-vault")


def test_the_vault_opens_and_each_cooperative_keeps_its_own_values(matrix: Path, home: Path) -> None:
    """--list-hosts reads no host's variables, and would not notice a vault that stays closed."""
    texts = [
        part for command in of("ansible-playbook").values() for part in command.parts if part[0] == "ansible-playbook"
    ]
    asked = {inventory_options(words) for words in texts}
    assert any(options.count("-i ") == 3 for options in asked)

    def look(options: str) -> dict[str, Any]:
        shown = run(f"ansible-inventory {options} --list --output {matrix}/listed-{hash(options)}.json", matrix, home)
        assert "no vault secrets" not in shown
        listed: dict[str, Any] = json.loads((matrix / f"listed-{hash(options)}.json").read_text())["_meta"]["hostvars"]
        return listed

    with ThreadPoolExecutor(2) as several:
        for hosts in several.map(look, sorted(asked)):
            for name, variables in hosts.items():
                domain = "federation.example" if name == "hub" else f"{name}.example"
                assert variables["matrix_domain"] == domain
                assert variables["synapse_secret_config" if name != "hub" else "encryption_gate_administrators"]
                assert "vault_support_password" in variables


def test_the_vault_of_an_example_is_looked_at_and_made_anew(home: Path, tmp_path: Path) -> None:
    for example in ("example_cooperative", "example_federation_hub"):
        place = tmp_path / example
        shutil.copytree(ROOT / "inventories" / example, place)
        found = {text: one for text, one in of("ansible-vault").items() if one.block.page.parent.name == example}
        view, create = sorted(found, key=lambda text: "create" in text)
        assert "vault_support_password:" in run(view, place, home)
        vault = place / create.split()[-1]
        vault.unlink()
        run(create, place, home)
        assert vault.read_text().startswith("$ANSIBLE_VAULT;")


def test_who_has_an_earlier_example_moves_its_directory(home: Path, tmp_path: Path) -> None:
    (tmp_path / "group_vars/cooperatives").mkdir(parents=True)
    (tmp_path / "group_vars/cooperatives/main.yml").write_text("matrix_domain: atelier.example\n")
    (command,) = of("mv")
    run(command, tmp_path, home)
    assert (tmp_path / "host_vars/atelier/main.yml").exists()


def test_every_command_was_tried() -> None:
    """Above, on a machine, or as a target of make."""
    tried = {*of("ansible-playbook", "ansible-vault", "mv", *ON_A_MACHINE, *IN_THE_CHECKOUT)}
    started = {one.text for one in every_command() if one.block.page == ROOT / "docs/en/getting-started.md"}
    federation = {one.text for one in every_command() if one.block.page == ROOT / "docs/en/federation.md"}
    assert {command.text for command in every_command()} == tried | started | federation


# --- commands for elsewhere -------------------------------------------------------------------------------------


def test_targets_of_make_and_programs_of_the_checkout_are_there() -> None:
    targets = set((ROOT / "Makefile").read_text().split()) | set(re.findall(r"[\w-]+", (ROOT / "Makefile").read_text()))
    for command in of(*IN_THE_CHECKOUT).values():
        for program, *words in command.parts:
            if program == "make":
                assert next(word for word in words if "=" not in word) in targets, command.where
            else:
                assert os.access(ROOT / program, os.X_OK), command.where


def test_a_python_that_is_pasted_compiles() -> None:
    pasted = [text.split("\n", 1)[1].removesuffix("\nEOF") for text in of("python3")]
    assert len(pasted) == 2
    for text in pasted:
        compile(text, "pasted", "exec")


# --- what is named ----------------------------------------------------------------------------------------------


@functools.cache
def source() -> str:
    """Everything that runs, but for pages."""
    places = ("roles", "plugins", "playbooks", "tests", "molecule", ".config")
    files = [
        path
        for place in places
        for path in (ROOT / place).rglob("*")
        if path.suffix in (".py", ".yml", ".j2", ".sh", ".js")
    ]
    return "\n".join(path.read_text(encoding="utf-8") for path in files if path.is_file() and path != Path(__file__))


def quoted(page: Path) -> Iterator[str]:
    yield from re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL))


@functools.cache
def words() -> set[str]:
    # Synapse's own.
    return {*re.findall(r"\w+", source()), "registration_token_3pid_bypass"}


VARIABLE = re.compile(
    r"(?<!\w)(matrix|machine|postgresql|synapse|element|element_web|reverse_proxy|encryption_gate|federation|rooms|audit|verify|remedy"
    r"|registration_token|demo)_[a-z0-9_]+"
)


@pytest.mark.parametrize("page", documentation.pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_is_there(page: Path) -> None:
    """Variables, playbooks and plugins, files of the checkout, targets of make; in prose, commands and examples."""
    text = page.read_text(encoding="utf-8")
    for name in (match[0] for match in VARIABLE.finditer(text) if not match[0].endswith("_")):
        # Of a metric, Prometheus' library adds the end.
        assert {name, name.removesuffix("_total")} & words(), f"{page}: nothing is called {name}"
    plugins = {path.stem for place in ("modules", "filter") for path in (ROOT / "plugins" / place).glob("*.py")}
    playbooks = {path.stem for path in (ROOT / "playbooks").glob("*.yml")}
    roles = {path.name for path in (ROOT / "roles").iterdir()}
    for name in re.findall(r"(?<![\w/])cae\.matrix\.([a-z_]+)", text):
        assert name in plugins | playbooks | roles or f"cae.matrix.{name}" in source(), f"{page}: no cae.matrix.{name}"
    targets = re.findall(r"[\w-]+", (ROOT / "Makefile").read_text())
    for code in quoted(page):
        if re.fullmatch(r"(docs|inventories|molecule|playbooks|plugins|roles|tests)/[\w./-]+", code):
            near = [ROOT / code, page.parent / code, ROOT / "molecule/federation" / code]
            assert any(path.exists() for path in near) or not code.isascii(), f"{page}: no file {code}"
        if made := re.fullmatch(r"make ([a-z][a-z-]*)( .*)?", code):
            assert made[1] in targets, f"{page}: no target {made[1]}"


def anchor(heading: str) -> str:
    """As forges make it."""
    plain = re.sub(r"[`*\[\]]|\(.*?\)(?=$)", "", heading.strip().lower())
    return re.sub(r"[^\w -]", "", plain).replace(" ", "-")


@functools.cache
def anchors(page: Path) -> set[str]:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return {anchor(heading) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}


@pytest.mark.parametrize("page", documentation.pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, heading = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{page}: {target}"
        assert not heading or heading in anchors(there), f"{page}: {target}, one of {sorted(anchors(there))}"
