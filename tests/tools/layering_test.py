"""Checks that every #include in the tree points down the layers listed below, and nowhere else.

    layering_test.py [ROOT]     lists each violation of ROOT (default: this tree) as file:line, the include and the rule
"""

import collections
import pathlib
import re
import sys
import tempfile
import unittest

# The folders of framework/src, and of framework/include/peft under the same names, lowest layer first. A folder may
# include folders of lower layers, and others of its own layer as long as no cycle arises. plugins/ and apps/ are above
# all of them and may include only public headers (peft/...); nothing in the framework includes either.
LAYERS = [
    ["base"],
    ["options", "files"],
    ["architecture", "text"],
    ["pretrained"],
    ["data"],
    ["runtime"],
    ["ops", "plugin"],
    ["nn"],
    ["models"],
    ["adapters"],
    ["train"],
    ["planning", "export", "selfcheck"],
    ["experiment"],
]
LEVEL = {folder: level for level, layer in enumerate(LAYERS) for folder in layer}

SOURCE = pathlib.PurePath("framework/src")
PUBLIC = pathlib.PurePath("framework/include/peft")
ABOVE = [pathlib.PurePath("plugins"), pathlib.PurePath("apps")]
SUFFIXES = {".h", ".hpp", ".cpp", ".cc", ".cu", ".cuh", ".inc"}
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"\n]+)[>"]', re.MULTILINE)

Include = collections.namedtuple("Include", "file line text target")


def is_inside(path, folder):
    return path.parts[: len(folder.parts)] == folder.parts


def is_umbrella(path):
    """A header directly in include/peft: peft/plugin.h, peft/peft.h."""
    return path.parent == PUBLIC


def folder_of(path):
    """The framework folder that a file belongs to, or None."""
    for root in (SOURCE, PUBLIC):
        if is_inside(path, root) and len(path.parts) > len(root.parts) + 1:
            return path.parts[len(root.parts)]
    return None


def normalized(path):
    """`path` without "." and ".."."""
    parts = []
    for part in path.parts:
        if part == ".." and parts:
            parts.pop()
        elif part != ".":
            parts.append(part)
    return pathlib.PurePath(*parts)


def resolve(root, file, quote, name):
    """The file in the tree that an include names, relative to `root`, or None for headers from outside."""
    if is_inside(pathlib.PurePath(name), pathlib.PurePath("peft")):
        return PUBLIC / pathlib.PurePath(name).relative_to("peft")
    candidates = [SOURCE / name, pathlib.PurePath(name)]
    if quote == '"':
        candidates.insert(0, file.parent / name)
    for candidate in map(normalized, candidates):
        if (root / candidate).is_file():
            return candidate
    return None


def sources(root, folder):
    return sorted(path.relative_to(root) for path in (root / folder).rglob("*") if path.suffix in SUFFIXES)


def includes(root):
    """Every include in the framework, the plugins and the apps that names a file of the tree."""
    for folder in (SOURCE, PUBLIC, *ABOVE):
        for file in sources(root, folder):
            text = (root / file).read_text()
            for match in INCLUDE.finditer(text):
                target = resolve(root, file, *match.groups())
                if target is not None:
                    line = text.count("\n", 0, match.start()) + 1
                    yield Include(file, line, match.group(0).strip(), target)


def broken_rule(include):
    """The rule that one include breaks, or None."""
    file, target = include.file, include.target
    if any(is_inside(file, folder) for folder in ABOVE):
        if is_inside(target, SOURCE):
            return "plugins and apps include only public headers (peft/...)"
        return None
    if any(is_inside(target, folder) for folder in ABOVE):
        return "the framework includes neither plugins nor apps"
    if is_umbrella(file):
        return None
    if is_umbrella(target):
        return "the framework does not include umbrella headers (those directly in include/peft)"
    if is_inside(file, PUBLIC) and is_inside(target, SOURCE):
        return "public headers include only public headers (peft/...)"
    origin, destination = folder_of(file), folder_of(target)
    if origin in LEVEL and destination in LEVEL and LEVEL[origin] < LEVEL[destination]:
        return f"'{origin}' is a lower layer than '{destination}' and must not include it"
    return None


def find_cycle(edges):
    """Folders along a cycle, the first one repeated at the end, or None."""
    done = set()

    def visit(folder, path):
        if folder in path:
            return path[path.index(folder) :] + [folder]
        if folder in done:
            return None
        for other in sorted(edges[folder]):
            if cycle := visit(other, path + [folder]):
                return cycle
        done.add(folder)
        return None

    for folder in sorted(edges):
        if cycle := visit(folder, []):
            return cycle
    return None


def folders(root, parent):
    return {file.parts[len(parent.parts)] for file in sources(root, parent) if folder_of(file)}


def violations(root):
    """Every broken rule in the tree at `root`, one message each."""
    root = pathlib.Path(root)
    found = []
    edges, example = collections.defaultdict(set), {}
    for include in includes(root):
        if rule := broken_rule(include):
            found.append(f"{include.file}:{include.line}: {include.text}: {rule}")
            continue
        origin, destination = folder_of(include.file), folder_of(include.target)
        if origin and destination and origin != destination:
            edges[origin].add(destination)
            example.setdefault((origin, destination), f"{include.file}:{include.line}")
    if cycle := find_cycle(edges):
        where = ", ".join(example[edge] for edge in zip(cycle, cycle[1:]))
        found.append(f"{' -> '.join(cycle)}: folders must not include each other in a cycle ({where})")
    for folder in sorted(folders(root, SOURCE) - LEVEL.keys()):
        found.append(f"{SOURCE / folder}: not listed in LAYERS of tests/tools/layering_test.py")
    for folder in sorted(folders(root, PUBLIC) - folders(root, SOURCE)):
        found.append(f"{PUBLIC / folder}: public headers of a folder that {SOURCE} does not have")
    return found


class Layering(unittest.TestCase):
    """Runs the check on the tree, and on trees made to break one rule each."""

    def setUp(self):
        scratch = tempfile.TemporaryDirectory(prefix="peft_layering_")
        self.addCleanup(scratch.cleanup)
        self.root = pathlib.Path(scratch.name)
        self.write("framework/src/base/error.cpp", '#include "peft/base/error.h"\n')
        self.write("framework/include/peft/base/error.h", "#pragma once\n#include <string>\n")
        self.write("framework/src/train/loop.cpp", '#include "peft/base/error.h"\n#include "train/step.h"\n')
        self.write("framework/src/train/step.h", "#pragma once\n")
        self.write("framework/include/peft/plugin.h", '#include "peft/base/error.h"\n')
        self.write("plugins/adapter/lora/lora.cpp", '#include <peft/plugin.h>\n#include "layer.h"\n')
        self.write("plugins/adapter/lora/layer.h", "#pragma once\n")
        self.write("apps/peft-run/main.cpp", "#include <peft/base/error.h>\n")

    def write(self, path, text):
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def assert_finds(self, *parts):
        (message,) = violations(self.root)
        for part in parts:
            self.assertIn(part, message)

    def test_this_tree(self):
        found = violations(pathlib.Path(__file__).resolve().parents[2])
        self.assertFalse(found, "\n" + "\n".join(found))

    def test_valid_tree(self):
        self.assertEqual(violations(self.root), [])

    def test_upward_include(self):
        self.write("framework/src/base/error.cpp", '// Comment.\n#  include "train/step.h"\n')
        self.assert_finds("framework/src/base/error.cpp:2:", "'base' is a lower layer than 'train'")

    def test_upward_include_of_a_public_header(self):
        self.write("framework/src/options/toml.cpp", "#include <peft/train/train.h>\n")
        self.assert_finds("framework/src/options/toml.cpp:1:", "'options' is a lower layer than 'train'")

    def test_upward_include_by_a_relative_path(self):
        self.write("framework/src/base/error.cpp", '#include "../train/step.h"\n')
        self.assert_finds("framework/src/base/error.cpp:1:", "'base' is a lower layer than 'train'")

    def test_cycle_within_a_layer(self):
        self.write("framework/src/options/a.h", '#include "files/b.h"\n')
        self.write("framework/src/files/b.h", '#include "options/a.h"\n')
        self.assert_finds("files -> options -> files", "framework/src/options/a.h:1", "framework/src/files/b.h:1")

    def test_one_way_within_a_layer(self):
        self.write("framework/src/options/a.h", '#include "files/b.h"\n')
        self.write("framework/src/files/b.h", "#pragma once\n")
        self.assertEqual(violations(self.root), [])

    def test_plugin_includes_internals(self):
        for include in ('"train/step.h"', "<train/step.h>", '"../../../framework/src/train/step.h"'):
            with self.subTest(include=include):
                self.write("plugins/adapter/lora/lora.cpp", f"#include {include}\n")
                self.assert_finds("plugins/adapter/lora/lora.cpp:1:", "only public headers")

    def test_app_includes_internals(self):
        self.write("apps/peft-run/main.cpp", '#include "train/step.h"\n')
        self.assert_finds("apps/peft-run/main.cpp:1:", "only public headers")

    def test_framework_includes_a_plugin(self):
        self.write("framework/src/train/loop.cpp", '#include "plugins/adapter/lora/layer.h"\n')
        self.assert_finds("framework/src/train/loop.cpp:1:", "neither plugins nor apps")

    def test_framework_includes_an_umbrella_header(self):
        for file in ("framework/src/train/loop.cpp", "framework/include/peft/base/error.h"):
            with self.subTest(file=file):
                self.setUp()
                self.write(file, '#include "peft/plugin.h"\n')
                self.assert_finds(f"{file}:1:", "umbrella")

    def test_public_header_includes_an_internal_one(self):
        self.write("framework/include/peft/train/train.h", '#include "train/step.h"\n')
        self.assert_finds("framework/include/peft/train/train.h:1:", "public headers include only public headers")

    def test_public_folder_without_sources(self):
        self.write("framework/include/peft/data/dataset.h", "#pragma once\n")
        self.assert_finds("framework/include/peft/data:", "does not have")

    def test_folder_without_a_layer(self):
        self.write("framework/src/utils/misc.h", "#pragma once\n")
        self.assert_finds("framework/src/utils:", "not listed in LAYERS")


if __name__ == "__main__":
    if len(sys.argv) == 2 and not sys.argv[1].startswith("-"):
        broken = violations(sys.argv[1])
        print("\n".join(broken) or "no violations")
        sys.exit(1 if broken else 0)
    unittest.main()
