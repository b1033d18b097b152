"""The headers that plugins compile against are those that framework/abi.lock records, and tools/abi notices a change."""

import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent

PLUGIN_H = """\
#pragma once
#include <string>
#include "peft/abi.h"
#include "peft/adapters/adapter.h"
"""
ABI_H = "#pragma once\n#define PEFT_ABI_NUMBER 7\n"
ADAPTER_H = """\
#pragma once
/// One method.
class Adapter {
 public:
  virtual void attach(int model) = 0;  // once
  int limit = 1'000;
  const char* url = "http://x";
};
"""
EXTRA_H = "struct Extra { int a; };\n"
PRIVATE_H = "struct NotForPlugins { int a; };\n"
PLUGIN_CPP = '#include <peft/plugin.h>\n#include "peft/adapters/extra.h"\n'


class Abi(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory(prefix="peft_abi_")
        self.addCleanup(scratch.cleanup)
        self.tree = pathlib.Path(scratch.name)
        self.write("tools/abi", (ROOT / "tools" / "abi").read_text())
        self.write("plugins/adapter/mine/mine.cpp", PLUGIN_CPP)
        self.header("plugin.h", PLUGIN_H)
        self.header("abi.h", ABI_H)
        self.header("adapters/adapter.h", ADAPTER_H)
        self.header("adapters/extra.h", EXTRA_H)
        self.header("internal.h", PRIVATE_H)
        self.run_tool("--update")

    def write(self, path, text):
        file = self.tree / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def header(self, name, text):
        self.write(f"framework/include/peft/{name}", text)

    def lock(self):
        return (self.tree / "framework" / "abi.lock").read_text()

    def run_tool(self, *words, fails=False):
        done = subprocess.run([sys.executable, self.tree / "tools" / "abi", *words], text=True, capture_output=True)
        self.assertEqual(done.returncode, 1 if fails else 0, done.stderr)
        return done.stderr

    def refused(self, *parts):
        """Both forms refuse the tree, and name each part; the lock stays."""
        before = self.lock()
        for words in ([], ["--update"]):
            message = self.run_tool(*words, fails=True)
            for part in parts:
                self.assertIn(part, message)
        self.assertEqual(self.lock(), before)

    def test_this_tree(self):
        done = subprocess.run([sys.executable, ROOT / "tools" / "abi"], text=True, capture_output=True)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_lock_names_what_plugins_see(self):
        self.assertIn("number 7\n", self.lock())
        for name in ("plugin.h", "abi.h", "adapters/adapter.h", "adapters/extra.h"):
            self.assertIn(f"peft/{name} ", self.lock())
        self.assertNotIn("internal.h", self.lock())

    def test_comments_layout_and_includes_do_not_count(self):
        before = self.lock()
        self.header("adapters/adapter.h", ADAPTER_H.replace("One method", "A method").replace("// once", "/* once\n only */"))
        self.run_tool()
        self.header("adapters/adapter.h", ADAPTER_H.replace("attach(int model)", "attach(\n      int   model)"))
        self.run_tool()
        self.header("adapters/adapter.h", "#include <vector>  // for later\n" + ADAPTER_H)
        self.run_tool("--update")
        self.assertEqual(self.lock(), before)
        self.header("internal.h", "struct NotForPlugins { double a; };\n")
        self.run_tool()

    def test_a_changed_member_needs_a_new_number(self):
        for old, new in (("attach(int model)", "attach(long model)"), ("1'000", "1'001"), ("http://x", "http://y"),
                         ("virtual void attach(int model) = 0;", "")):
            with self.subTest(new=new):
                changed = ADAPTER_H.replace(old, new)
                self.assertNotEqual(changed, ADAPTER_H)
                self.header("adapters/adapter.h", changed)
                self.refused("peft/adapters/adapter.h: changed", "PEFT_ABI_NUMBER is still 7", "tools/abi --update")

    def test_with_a_new_number_the_lock_can_be_updated(self):
        self.header("adapters/extra.h", EXTRA_H.replace("int", "long"))
        self.header("abi.h", ABI_H.replace("7", "8"))
        self.assertIn("run tools/abi --update", self.run_tool(fails=True))
        self.run_tool("--update")
        self.run_tool()
        self.assertIn("number 8\n", self.lock())

    def test_a_number_that_was_raised_alone_or_lowered(self):
        self.header("abi.h", ABI_H.replace("7", "8"))
        self.run_tool(fails=True)
        self.run_tool("--update")
        self.header("abi.h", ABI_H)
        self.refused("PEFT_ABI_NUMBER is 7, lower than 8")

    def test_headers_that_come_go_and_move(self):
        self.header("adapters/layer.h", "struct Layer {};\n")
        self.header("adapters/adapter.h", '#include "peft/adapters/layer.h"\n' + ADAPTER_H)
        self.refused("peft/adapters/layer.h: added")
        self.header("adapters/adapter.h", ADAPTER_H)
        self.write("plugins/adapter/mine/mine.cpp", "#include <peft/plugin.h>\n")
        self.refused("peft/adapters/extra.h: removed")
        self.write("plugins/adapter/mine/mine.cpp", "#include <peft/elsewhere.h>\n")
        self.refused("plugins/adapter/mine/mine.cpp: includes peft/elsewhere.h")

    def test_where_the_number_is_does_not_matter(self):
        shutil.rmtree(self.tree / "framework" / "include" / "peft" / "adapters")
        self.header("plugin/abi.h", ABI_H.replace("7", "8"))
        self.header("plugin.h", '#include "peft/plugin/abi.h"\n')
        self.write("plugins/adapter/mine/mine.cpp", "")
        self.run_tool("--update")
        self.assertIn("number 8\n", self.lock())
        self.header("plugin/abi.h", "// #define PEFT_ABI_NUMBER 8\n")
        self.refused("PEFT_ABI_NUMBER n' in the headers of plugins, found 0")

    def test_a_lock_that_cannot_be_read(self):
        self.write("framework/abi.lock", self.lock().replace("number 7", "<<<<<<< ours"))
        self.refused("after a merge conflict")
        self.write("framework/abi.lock", "# empty\n")
        self.refused("has no line 'number n'")


if __name__ == "__main__":
    unittest.main()
