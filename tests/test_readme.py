"""What the README says is so."""

import dataclasses
import re

from conftest import ROOT, run_without_torch

from config import Config, flag_of

README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")}


def test_ci_runs_the_readmes_test_command():
    command = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()[-1]
    assert f"```sh\n{command}\n```" in README
    assert command.endswith("&& pytest")


def test_every_module_and_nothing_else_is_on_the_map():
    files = DOCS["code"][DOCS["code"].index("## Files") :]
    modules = {path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.py"), *(ROOT / "htr").glob("*/[!_]*.py")]}
    folder, named = "", set()
    for row in files[: files.index("| `weights/`")].splitlines():
        folder = "".join(re.findall(r"`(htr/\w+/)`", row)) or folder
        named |= {folder + name for name in re.findall(r"`(\w+\.py)`", row)}
    assert named == modules


def test_every_flag_named_exists():
    flags = {flag_of(field) for field in dataclasses.fields(Config)}
    flags |= {f"--no-{flag_of(field)[2:]}" for field in dataclasses.fields(Config) if isinstance(field.default, bool)}
    sources = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("*.py"))
    commands = r"^python3 .*$|torchrun --nproc-per-node \d"
    texts = "\n".join([README, *DOCS.values()])
    for flag in set(re.findall(r"--[a-z][a-z-]+", re.sub(commands, "", texts, flags=re.MULTILINE))):
        assert flag in flags or f'"{flag}"' in sources or flag in ("--check", "--help"), flag


def test_defaults_in_the_table_are_the_settings():
    rows = dict(re.findall(r"^\| `(--[a-z-]+)` \| `?([^ |`]+)", DOCS["settings"], re.MULTILINE))
    for field in dataclasses.fields(Config):
        if flag_of(field) in rows:
            assert rows[flag_of(field)] == str(field.default), field.name
    assert len(rows) >= 8


def test_the_packages_named_are_enough_to_read_without_pytorch(tmp_path):
    """Its command, where no other package of the project can be imported."""
    (command,) = re.findall(r"pip install (onnxruntime [\w ]+) && python (.*)$", README, re.MULTILINE)
    named, script = command[0].split(), command[1].split()
    needed = re.findall(r"^[\w-]+", (ROOT / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE)
    imported = {"python-bidi": "bidi", "XlsxWriter": "xlsxwriter"}
    others = [imported.get(name, name) for name in needed if name not in named]
    assert {"torch", "torchvision", "matplotlib", "bidi", "xlsxwriter"} == set(others)
    (tmp_path / "samples").symlink_to(ROOT / "samples")
    code = f"sys.modules |= dict.fromkeys({others}); sys.argv = {script}; import runpy;"
    done = run_without_torch(tmp_path, code + "runpy.run_module('predict', run_name='__main__')")
    assert done.returncode == 0, done.stderr
    assert "exact match 1.0000 (12 of 12 labelled images)" in done.stdout


def test_the_readme_is_short_and_links_to_every_page():
    assert len(README.splitlines()) < 350
    assert set(re.findall(r"\]\(docs/(\w+)\.md", README)) == DOCS.keys()


def test_every_link_leads_somewhere():
    """Also those within a page: a heading's anchor is its words in lower case, with hyphens between them."""

    def anchors(text: str) -> set[str]:
        headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}

    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *ROOT.glob("*/README.md")]:
        for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
            if "://" in link:
                continue
            name, _, anchor = link.partition("#")
            target = (path.parent / name).resolve() if name else path
            assert target.exists(), f"{path.name}: {link}"
            if anchor:
                text = (target / "README.md" if target.is_dir() else target).read_text(encoding="utf-8")
                assert anchor in anchors(text), f"{path.name}: {link}"
