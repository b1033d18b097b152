"""Promises of tools/new-plugin and of the page that shows its templates. tests/consumer shows that the plugins it creates
build and work."""

import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
KINDS = ["adapter", "clipping", "objective", "optimizer", "precision", "scheduler"]


def everything(folder):
    """All files below a folder, with their contents."""
    return {file.relative_to(folder): file.read_text() for file in folder.rglob("*") if file.is_file()}


class NewPlugin(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory(prefix="peft_new_plugin_")
        self.addCleanup(scratch.cleanup)
        self.folder = pathlib.Path(scratch.name)
        # A copy of the repository, to which a plugin can be added.
        self.tree = self.folder / "tree"
        shutil.copytree(ROOT / "tools", self.tree / "tools")
        headers = pathlib.Path("framework/include/peft/plugin")
        shutil.copytree(ROOT / headers, self.tree / headers)
        (self.tree / "plugins" / "optimizer" / "sgd").mkdir(parents=True)

    def make(self, *words, code=0):
        done = subprocess.run([sys.executable, self.tree / "tools" / "new-plugin", *map(str, words)], text=True,
                              capture_output=True, cwd=self.folder, stdin=subprocess.DEVNULL)
        self.assertEqual(done.returncode, code, done.stderr)
        return done.stdout if code == 0 else done.stderr

    def test_every_kind(self):
        self.assertEqual(sorted(folder.name for folder in (ROOT / "tools" / "templates").iterdir()), KINDS)
        for kind in KINDS:
            self.assertIn(f"{kind}/my_own2", self.make(kind, "my_own2", kind))
            (source,) = (ROOT / "tools" / "templates" / kind).glob("*.cpp")
            made = everything(self.folder / kind)
            self.assertLessEqual({pathlib.Path(name) for name in ("my_own2.cpp", "CMakeLists.txt", "README.md")}, set(made))
            for file, text in made.items():
                self.assertNotIn(source.stem, f"{file}\n{text}".lower())
            self.assertIn("class MyOwn2 final", made[pathlib.Path("my_own2.cpp")])
        self.assertIn('("MY_OWN2"', everything(self.folder / "adapter")[pathlib.Path("my_own2.cpp")])

    def test_in_the_tree(self):
        self.make("adapter", "mine")
        made = self.tree / "plugins" / "adapter" / "mine"
        self.assertEqual((made / "CMakeLists.txt").read_text(), "peft_add_plugin(adapter mine mine.cpp)\n")
        self.assertNotIn("[plugins]", (made / "example.toml").read_text())
        self.assertIn('name = "mine"', (made / "example.toml").read_text())

    def test_installed(self):
        """As cmake --install lays it out (cmake/PeftInstall.cmake)."""
        prefix = self.folder / "prefix"
        (prefix / "bin").mkdir(parents=True)
        script = shutil.copy(ROOT / "tools" / "new-plugin", prefix / "bin" / "peft-new-plugin")
        shutil.copytree(ROOT / "tools" / "templates", prefix / "share" / "peft" / "templates")
        headers = pathlib.Path("peft/plugin")
        shutil.copytree(ROOT / "framework/include" / headers, prefix / "include" / headers)

        def make(*words):
            return subprocess.run([sys.executable, script, *map(str, words)], text=True, capture_output=True, cwd=self.folder)

        done = make("adapter", "mine", "outside")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(f"-DCMAKE_PREFIX_PATH={prefix}", done.stdout)
        self.assertIn("find_package(peft", (self.folder / "outside" / "CMakeLists.txt").read_text())
        self.assertEqual(make("adapter", "mine", prefix / "mine").returncode, 0)  # not a source tree
        self.assertIn("usage: peft-new-plugin KIND NAME FOLDER", make("adapter", "mine").stderr)
        self.assertIn("peft-new-plugin KIND NAME FOLDER\n", make("--help").stdout)

    def test_readme_is_to_be_written(self):
        """What describes the template is not left as the description of the new plugin."""
        for kind in KINDS:
            self.assertIn("README.md: replace each TODO", self.make(kind, "mine", kind))
            self.assertGreater((self.folder / kind / "README.md").read_text().count("TODO"), 1)

    def test_kind_without_a_template(self):
        header = self.tree / "framework" / "include" / "peft" / "plugin" / "kinds.h"
        text = header.read_text()
        header.write_text(text.replace('  X(Objective, "objective"', '  X(Extra, "extra", "") \\\n  X(Objective, "objective"'))
        self.assertNotEqual(header.read_text(), text)
        self.assertIn("create tools/templates/extra", self.make("extra", "mine", code=2))
        self.assertIn("expected one of adapter, optimizer, scheduler, clipping, precision, extra", self.make("extras", "mine", code=2))

    def test_refusals_leave_nothing(self):
        (self.folder / "there").mkdir()
        (self.folder / "there" / "kept").write_text("mine")
        (self.folder / "file").write_text("mine")
        before = everything(self.folder)
        for words, part in (
            ([], "KIND NAME"),
            (["adapter"], "KIND NAME"),
            (["adapter", "a", "b", "c"], "KIND NAME"),
            (["adaptor", "mine"], "unknown kind of plugin 'adaptor'; expected one of adapter, optimizer"),
            (["adapter", "Mine"], "'Mine' is not a valid plugin name"),
            (["adapter", "2nd"], "'2nd' is not a valid plugin name"),
            (["adapter", "my-own"], "'my-own' is not a valid plugin name"),
            (["adapter", "../up"], "'../up' is not a valid plugin name"),
            (["adapter", ""], "'' is not a valid plugin name"),
            (["optimizer", "sgd", "elsewhere"], "optimizer/sgd already exists"),
            (["adapter", "mine", "there"], "not overwriting it"),
            (["adapter", "mine", "file"], "not overwriting it"),
            (["adapter", "mine", "file/below"], "cannot create"),
            (["adapter", "mine", self.tree / "docs" / "mine"], "inside this repository"),
        ):
            with self.subTest(words=words):
                self.assertIn(part, self.make(*words, code=2))
                self.assertEqual(everything(self.folder), before)
                self.assertFalse(list(self.folder.rglob(".new-plugin-*")))

    def test_page_shows_the_templates(self):
        """The page's code equals the templates, and --check reports a page that differs."""
        page = ROOT / "docs" / "write-a-plugin.md"
        check = [sys.executable, ROOT / "tools" / "snippets.py", "--check"]
        subprocess.run([*check, page], check=True)
        for kind in KINDS:
            (source,) = (ROOT / "tools" / "templates" / kind).glob("*.cpp")
            self.assertIn(f"<!-- tools/templates/{kind}/{source.name} -->\n```cpp\n{source.read_text()}```\n", page.read_text())
        other = self.folder / "page.md"
        other.write_text(page.read_text().replace("factor_", "share_"))
        self.assertNotEqual(subprocess.run([*check, other], capture_output=True).returncode, 0)


if __name__ == "__main__":
    unittest.main()
