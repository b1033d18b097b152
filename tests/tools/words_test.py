"""Shows that no file of the tree contains a word that docs/style.md rules out, and that tools/words finds such words."""

import importlib.util
import pathlib
import subprocess
import sys
import unittest
from importlib.machinery import SourceFileLoader

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.dont_write_bytecode = True


def load():
    loader = SourceFileLoader("words", str(ROOT / "tools" / "words"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("words", loader))
    loader.exec_module(module)
    return module


words = load()


class Words(unittest.TestCase):
    def found(self, text):
        return [(line, word) for line, word, _ in words.findings(text)]

    def test_tree(self):
        done = subprocess.run([sys.executable, ROOT / "tools" / "words"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_tree_exists(self):
        for path in words.TREE:
            self.assertTrue(words.files([path]), path)

    def test_report(self):
        self.assertEqual(self.found("good\nis told here\n"), [(2, "told")])
        ((_, _, instead),) = words.findings("told")
        self.assertIn("report", instead)

    def test_case_underscores_and_line_breaks(self):
        self.assertEqual(self.found("Told tell_user not_kept"), [(1, "Told"), (1, "tell"), (1, "not_kept")])
        self.assertEqual(self.found("/// goes\n/// on"), [(1, "goes /// on")])

    def test_parts_of_words(self):
        self.assertEqual(self.found("intellect retold wholesale standard believer unfolded"), [])

    def test_phrases_that_are_allowed(self):
        for text in ["a whole number", "there is no adapter", "is no longer used", "if there is none", "x is None", "{{ x is none }}",
                     "does not have", "has not been read", "stands for", "aside from that", "optimistic", "promise otherwise",
                     "lies between 0 and 1"]:
            self.assertEqual(self.found(text), [], text)

    def test_phrases_that_are_not(self):
        for text in ["the whole file", "what is no adapter", "which is none", "which JSON has not", "has not the space",
                     "goes over the file", "what is kept", "set_aside_after", "tokenised", "dequantises", "neighbours",
                     "int64_t most", "bears", "unrecognised"]:
            self.assertEqual(len(self.found(text)), 1, text)

    def test_marker(self):
        self.assertEqual(self.found("told  // words: ok\ntold\n"), [(2, "told")])

    def test_code_in_markdown(self):
        text = words.read(words.ROOT / "docs" / "style.md")
        self.assertNotIn("cu_seqlens", text)
        self.assertIn("is told", text)

    def test_files(self):
        names = {str(name) for name in words.files(words.TREE)}
        for name in ["CMakeLists.txt", "framework/CMakeLists.txt", "tests/cli/help/expected", "tools/setup"]:
            self.assertTrue(name in names, name)
        for name in ["docs/style.md", "tests/tools/words_test.py", "tools/words"]:
            self.assertFalse(name in names, name)


if __name__ == "__main__":
    unittest.main()
