#!/usr/bin/env python3
"""Writes plugins/names.hints.toml from the tables of docs/migrate.md: hints.py [--check]

peft-run answers the option names of other tools with these hints (framework/include/peft/options/name_hints.h). With --check
writes nothing, and reports a file that is out of date with exit code 1.
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "migrate.md"
FILE = ROOT / "plugins" / "names.hints.toml"
HEADER = """# What the option names of other tools are called here, for peft-run's error messages. tools/docs writes this file from the
# tables of docs/migrate.md.
"""
COLUMN = "peft.cpp"
CODE = re.compile(r"`([^`]+)`")
OURS = re.compile(r"(?P<table>[a-z_]+)\.(?P<key>[\w.]+)(?: = (?P<value>.+))?")
THEIRS = re.compile(r'(?:\w+\.)*(?P<name>[A-Za-z_]\w*)(?:(?:=|: )"?(?P<value>\w+)"?)?|"(?P<only>\w+)"')
KINDS = re.findall(r'^  X\(\w+, "(\w+)"', (ROOT / "framework/include/peft/plugin/kinds.h").read_text(), re.MULTILINE)


def rows(text):
    """The cells of each row of the tables that have the column "peft.cpp"."""
    column = None
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            column = None
        elif column is None:
            column = cells.index(COLUMN) if COLUMN in cells else -1
        elif column == 1 and len(cells) > 2 and not cells[0].startswith("---"):
            yield cells


def plain(markdown):
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", markdown).replace("`", "").strip()


def hints(text):
    """({their key: our options}, {their key: why there is none}, {kind: {their plugin: hint}})"""
    options, absent, plugins = {}, {}, {}
    own = {}  # our keys, for one that is written in the wrong table
    for theirs, ours, note, *_ in rows(text):
        names = [THEIRS.fullmatch(span) for span in CODE.findall(theirs)]
        targets = [match for match in map(OURS.fullmatch, CODE.findall(ours)) if match]
        for position, name in enumerate(names):
            if name is None or "." in name[0] and note:  # part of another option, and not quite the same
                continue
            if ours == "–":
                if name["name"] and not name["value"]:
                    absent.setdefault(name["name"], plain(note) or "not available")
                continue
            for target in targets:
                if target["key"].isidentifier() and target["key"] != "name":
                    own.setdefault(target["key"], f"{target['table']}.{target['key']}")
            for target in [targets[position]] if len(targets) == len(names) else targets:
                value = name["value"] or name["only"]
                chooses = target["key"] == "name" and target["value"] and value not in (None, "True", "true")
                option = target[0].split(" = ")[0] if chooses else target[0]
                if name["name"] and option not in options.setdefault(name["name"], []):
                    options[name["name"]].append(option)
                if chooses and target["table"] in KINDS and target["value"].strip('"') != value:
                    plugins.setdefault(target["table"], {}).setdefault(value, f"here it is '{target['value'].strip(chr(34))}'")
    for key, option in own.items():
        if option not in options.setdefault(key, []):
            options[key].append(option)
    return options, {name: why for name, why in absent.items() if name not in options}, plugins


def quoted(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def toml(options, absent, plugins):
    lines = [HEADER + "[keys]"]
    lines += [f"{name} = [{', '.join(map(quoted, options[name]))}]" for name in sorted(options) if options[name]]
    lines += [f"{name} = {quoted(absent[name])}" for name in sorted(absent)]
    for kind in sorted(plugins):
        lines += ["", f"[{kind}]", *(f"{name} = {quoted(hint)}" for name, hint in sorted(plugins[kind].items()))]
    return "\n".join(lines) + "\n"


def main():
    check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not check:
        sys.exit(__doc__)
    text = toml(*hints(PAGE.read_text()))
    if check and (not FILE.exists() or FILE.read_text() != text):
        sys.exit(f"{FILE.relative_to(ROOT)} is out of date: run tools/docs")
    if not check:
        FILE.write_text(text)


if __name__ == "__main__":
    main()
