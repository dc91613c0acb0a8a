"""What the README says is so."""

import dataclasses
import re

from conftest import ROOT

from config import Config, flag_of

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_ci_runs_the_readmes_test_command():
    command = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()[-1]
    assert f"```sh\n{command}\n```" in README
    assert command.endswith("&& pytest")


def test_every_module_and_nothing_else_is_on_the_map():
    files = README[README.index("## Files") : README.index("## Limits")]
    modules = {path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.py"), *(ROOT / "htr").glob("[!_]*.py")]}
    assert set(re.findall(r"`((?:htr/)?\w+\.py)`", files)) == modules


def test_every_flag_named_exists():
    flags = {flag_of(field) for field in dataclasses.fields(Config)}
    flags |= {f"--no-{flag_of(field)[2:]}" for field in dataclasses.fields(Config) if isinstance(field.default, bool)}
    sources = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("*.py"))
    commands = r"^python3 .*$|torchrun --nproc-per-node \d"
    for flag in set(re.findall(r"--[a-z][a-z-]+", re.sub(commands, "", README, flags=re.MULTILINE))):
        assert flag in flags or f'"{flag}"' in sources or flag in ("--check", "--help"), flag


def test_defaults_in_the_table_are_the_settings():
    rows = dict(re.findall(r"^\| `(--[a-z-]+)` \| `?([^ |`]+)", README, re.MULTILINE))
    for field in dataclasses.fields(Config):
        if flag_of(field) in rows:
            assert rows[flag_of(field)] == str(field.default), field.name
    assert len(rows) >= 8
