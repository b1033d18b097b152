"""The pages agree with the tree: links resolve; files, tests and keys of experiments that they name exist; the messages that
docs/troubleshooting.md quotes are those of the sources."""

import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

try:
    import tomllib
except ImportError:  # Python 3.10
    tomllib = None

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "plugins").rglob("*.md")])
TUTORIALS = ["README.md", "docs/quickstart.md", "docs/migrate.md", "docs/guide.md"]

FENCE = re.compile(r"^(?P<mark>```+|~~~+)(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=mark)[ \t]*$", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"(?P<ticks>`+)(?P<text>.+?)(?P=ticks)")
LINK = re.compile(r"!?\[[^\]\[]*\]\((?P<target>[^()\s]+)(?:\s+\"[^\"]*\")?\)")
HEADING = re.compile(r"^#{1,6}\s+(?P<text>.+?)\s*#*$", re.MULTILINE)
KEY = re.compile(r"(?P<table>[a-z_]+)\.(?P<key>\w+(?:\.\w+)*)(?: = (?P<value>.+))?")
COLUMN = "peft.cpp"
FOLDERS = ("framework/", "plugins/", "apps/", "tests/", "tools/", "cmake/", "docs/", ".ci/")
SOURCE = re.compile(r"[\w.-]+(?:/[\w.-]+)+\.(?:h|cpp|c|cmake|def|py|patch)")
TEST = re.compile(r"test_\w+…?")
CPP_LEXEME = re.compile(r"""//[^\n]*|/\*.*?\*/|R"(?P<end>\w*)\((?P<raw>.*?)\)(?P=end)"|"(?P<text>(?:\\.|[^"\\\n])*)"|'(?:\\.|[^'\\\n])+'"""
                        r"""|\w+(?:'\w+)*|\S""", re.DOTALL)
SCRIPT_LEXEME = re.compile(r"""(?:^|\s)\#[^\n]*|"(?P<text>(?:\\.|[^"\\])*)"|'(?P<raw>[^'\n]*)'""", re.DOTALL | re.MULTILINE)
FILLED_IN = re.compile(r"%[-+0-9.]*(?:ll)?[a-zA-Z]|\$\{[^}]*\}|\$\w+")  # of printf, shell and CMake
MIN_FIXED = 8  # a shorter part of a message is not looked up


def anchors(page):
    """The anchors that GitHub makes of a page's headings."""
    seen, found = {}, set()
    for match in HEADING.finditer(FENCE.sub("", page.read_text())):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", match["text"]).replace("`", "")
        anchor = re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")
        count = seen.get(anchor, 0)
        seen[anchor] = count + 1
        found.add(f"{anchor}-{count}" if count else anchor)
    return found


def broken_links(page):
    text = CODE.sub("", FENCE.sub("", page.read_text()))
    for match in LINK.finditer(text):
        target, _, anchor = match["target"].partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        file = page.parent / target if target else page
        if not file.exists():
            yield f"{match['target']}: there is no such file"
        elif anchor and file.suffix == ".md" and anchor not in anchors(file):
            yield f"{match['target']}: there is no such heading"


def experiment_keys(text):
    """What docs/experiment.md, written by tools/docs, says: {table: keys} and {kind: {plugin: keys}}."""
    tables, plugins, keys = {}, {}, None
    for line in text.splitlines():
        if match := re.fullmatch(r"## `\[(\w+)\]`(: plugins)?", line):
            keys = tables.setdefault(match[1], set())
        elif match := re.fullmatch(r"### `(\w+)/(\w+)`", line):
            keys = plugins.setdefault(match[1], {}).setdefault(match[2], {"name"})
        elif match := re.match(r"\| `([\w.]+)` \|", line):
            keys.add(match[1])
    return tables, plugins


class Experiment:
    def __init__(self, text):
        self.tables, self.plugins = experiment_keys(text)

    def problem(self, table, key, name=None):
        """Why `table.key` is not a key, for the plugin `name` or, without one, for any plugin of the table's kind; or None."""
        if table not in self.tables:
            return f"[{table}] is not a table of docs/experiment.md"
        plugins = self.plugins.get(table, {})
        if name is not None and name not in plugins:
            return f"{table}/{name} is not a plugin of docs/experiment.md"
        known = set(self.tables[table])
        for plugin, keys in plugins.items():
            if name in (None, plugin):
                known |= keys
        return None if key in known else f"{table}.{key} is not a key of docs/experiment.md"


def column_spans(text, heading):
    """Each piece of code in the columns of that heading, with its line's number."""
    column = None
    for number, line in enumerate(text.splitlines(), 1):
        if not line.startswith("|"):
            column = None
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if column is None:
            column = cells.index(heading) if heading in cells else -1
        elif column >= 0 and column < len(cells):
            yield from ((number, match["text"]) for match in CODE.finditer(cells[column]))


def key_problems(text, experiment):
    """What is wrong with the keys in the 'peft.cpp' columns of a page; commands and tables in brackets are left out."""
    for number, span in column_spans(text, COLUMN):
        if span.startswith(("peft-run", "[[")):
            continue
        match = KEY.fullmatch(span)
        if not match:
            yield f"line {number}: `{span}` is not table.key or table.key = value"
            continue
        named = match["value"].strip('"') if match["key"] == "name" and match["value"] else None
        if problem := experiment.problem(match["table"], match["key"], named):
            yield f"line {number}: {problem}"


def example_problems(text, experiment):
    """What is wrong with the keys in a page's TOML blocks."""

    def check(table, content, name, prefix=""):
        for key, value in content.items():
            problem = experiment.problem(table, prefix + key, name)
            if problem and isinstance(value, dict):
                yield from check(table, value, name, prefix + key + ".")
            elif problem:
                yield problem

    for block in FENCE.finditer(text):
        if block["language"] == "toml":
            for table, content in tomllib.loads(block["text"]).items():
                for one in content if isinstance(content, list) else [content]:
                    yield from check(table, one, one.get("name") if table in experiment.plugins else None)


def missing_files(page):
    """Each file or folder of the tree that a piece of code starts with, but that does not exist. A path is relative to the
    tree, framework/src, framework/include or the page; one with a placeholder (`<name>`, `NAME`, `*`) is left out."""
    for match in CODE.finditer(FENCE.sub("", page.read_text())):
        path = re.split(r"[ :,]", match["text"])[0]
        in_tree = path.startswith(FOLDERS) and re.fullmatch(r"[\w./-]+", path) and not re.search(r"/[A-Z]+(?:/|$)", path)
        if not in_tree and not SOURCE.fullmatch(path) or path.startswith("torch/"):
            continue
        if not any((folder / path).exists() for folder in (ROOT, ROOT / "framework/src", ROOT / "framework/include", page.parent)):
            yield f"`{path}`: there is no such file"


def missing_tests(page, names):
    """Each test that a piece of code names, but that is not among `names`; `test_a…` stands for all that start so."""
    for match in CODE.finditer(FENCE.sub("", page.read_text())):
        if TEST.fullmatch(match["text"]):
            stem = match["text"].removesuffix("…")
            if stem not in names and not (stem != match["text"] and any(name.startswith(stem) for name in names)):
                yield f"`{match['text']}`: there is no such test"


def names_of_tests():
    files = list((ROOT / "tests").rglob("*.py"))
    return {file.stem for file in files} | {name for file in files for name in re.findall(r"def (test_\w+)", file.read_text())}


def cpp_strings(text):
    """The string literals of a C++ source, adjacent ones joined."""
    joined = []
    for match in CPP_LEXEME.finditer(text):
        if match[0].startswith(("//", "/*")):
            continue
        if match["raw"] is not None:
            joined.append(match["raw"])
        elif match["text"] is not None:
            joined.append(re.sub(r"\\([\"\\n])", lambda escape: {"n": "\n"}.get(escape[1], escape[1]), match["text"]))
        elif joined:
            yield "".join(joined)
            joined = []


def all_strings():
    """What the program and the scripts that build it can print: strings in one text, each between two zeros."""
    found = []
    for folder in ("framework", "plugins", "apps"):
        for suffix in ("*.h", "*.cpp"):
            for file in sorted((ROOT / folder).rglob(suffix)):
                found += cpp_strings(file.read_text())
    for file in [ROOT / "tools/setup", ROOT / "tools/demo", ROOT / "tools/lib/common.sh", *sorted((ROOT / "cmake").glob("*.cmake"))]:
        found += (match["text"] or match["raw"] or "" for match in SCRIPT_LEXEME.finditer(file.read_text()))
    return "\0" + "\0".join(part for text in found for part in FILLED_IN.split(text)) + "\0"


def quoted_messages(text):
    """Each line of a page's `text` blocks."""
    for block in FENCE.finditer(text):
        if block["language"] == "text":
            yield from (line.strip() for line in block["text"].splitlines() if line.strip())


def is_printed(part, strings, begin="", pieces=3):
    """Whether a string has `part`, or a few strings put together have it."""
    if begin + part in strings:
        return True
    return pieces > 1 and any(begin + part[:i] + "\0" in strings and is_printed(part[i:], strings, "\0", pieces - 1)
                              for i in range(len(part) - 1, 0, -1))


def message_problems(text, strings):
    """What is wrong with the quoted messages: `…` stands for what varies, and each longer fixed part must be in a string."""
    for line in quoted_messages(text):
        parts = [part for part in line.split("…") if len(part.strip()) >= MIN_FIXED]
        if not parts:
            yield f"{line}: too short to be looked up"
        for part in parts:
            if not is_printed(part.strip(), strings):
                yield f"{line}: no source has '{part}'"


class Docs(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.experiment = Experiment((ROOT / "docs" / "experiment.md").read_text())

    def test_links(self):
        self.assertEqual([f"{page.relative_to(ROOT)}: {link}" for page in PAGES for link in broken_links(page)], [])

    def test_keys_of_the_migration_page(self):
        text = (ROOT / "docs" / "migrate.md").read_text()
        self.assertGreater(len(list(column_spans(text, COLUMN))), 100)
        self.assertEqual(list(key_problems(text, self.experiment)), [])

    def test_hints_are_those_of_the_migration_page(self):
        done = subprocess.run([sys.executable, ROOT / "tools" / "hints.py", "--check"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)

    @unittest.skipIf(tomllib is None, "needs Python 3.11")
    def test_hints(self):
        """They name options and plugins that exist, and explain names that do not exist here."""
        kinds = set(self.experiment.plugins)
        for file in sorted((ROOT / "plugins").rglob("*hints.toml")):
            for table, hints in tomllib.loads(file.read_text()).items():
                self.assertIn(table, kinds | {"keys"}, file)
                for name, hint in hints.items():
                    if table != "keys":
                        self.assertNotIn(name, self.experiment.plugins[table], file)
                        known = [word for word in re.findall(r"'(\w+)'", hint) if word in self.experiment.plugins[table]]
                        self.assertTrue(known, f"{file}: '{hint}' names no plugin")
                        keys = re.findall(r"(\w+) = ", hint)
                        for key in keys:
                            problem = self.experiment.problem(*(("data", key) if table == "objective" else (table, key, known[0])))
                            self.assertIsNone(problem, f"{file}: {hint}")
                    elif isinstance(hint, list):
                        for option in hint:
                            self.assertIsNone(self.experiment.problem(*option.split(" = ")[0].split(".", 1)), f"{name}: {option}")
        names = tomllib.loads((ROOT / "plugins" / "names.hints.toml").read_text())["keys"]
        for name, option in (("learning_rate", "optimizer.lr"), ("num_train_epochs", "training.epochs"),
                             ("per_device_train_batch_size", "training.batch_size"), ("rank", "adapter.r"), ("lora_rank", "adapter.r"),
                             ("max_seq_length", "data.max_length"), ("optim", "optimizer.name"), ("bf16", 'precision.name = "bf16"'),
                             ("logging_steps", "training.log_every"), ("lr_scheduler_type", "scheduler.name"),
                             ("gradient_accumulation_steps", "training.gradient_accumulation_steps"), ("cutoff_len", "data.max_length"),
                             ("micro_batch_size", "training.batch_size"), ("iters", "training.max_steps")):
            self.assertIn(option, names[name])

    @unittest.skipIf(tomllib is None, "needs Python 3.11")
    def test_keys_of_the_examples(self):
        for name in TUTORIALS:
            with self.subTest(page=name):
                self.assertEqual(list(example_problems((ROOT / name).read_text(), self.experiment)), [])

    def test_files_and_tests(self):
        """The page on other programs and the changelog name what is not in the tree."""
        names = names_of_tests()
        problems = [f"{page.relative_to(ROOT)}: {problem}" for page in PAGES if page.name not in ("migrate.md", "CHANGELOG.md")
                    for problem in (*missing_files(page), *missing_tests(page, names))]
        self.assertEqual(problems, [])

    def test_messages(self):
        text = (ROOT / "docs" / "troubleshooting.md").read_text()
        self.assertGreater(len(list(quoted_messages(text))), 50)
        self.assertEqual(list(message_problems(text, all_strings())), [])

    def test_versions_agree(self):
        version = re.search(r"^project\(peft VERSION ([\d.]+)", (ROOT / "CMakeLists.txt").read_text(), re.MULTILINE)[1]
        self.assertIn(f"\nversion: {version}\n", (ROOT / "CITATION.cff").read_text())
        self.assertIn(f"[{version}]", (ROOT / "CHANGELOG.md").read_text())


class Checks(unittest.TestCase):
    """What the checks above would notice."""

    def setUp(self):
        self.experiment = Experiment(
            "## `[training]`\n| `epochs` | number | `1.0` | … |\n## `[adapter]`\n| `name` | string | | … |\n"
            "## `[adapter]`: plugins\n### `adapter/lora`\n| `r` | integer | `8` | … |\n| `eva_config.rho` | number | `2` | … |\n"
            "| `rank_pattern` | table of integers | `{}` | … |\n### `adapter/ia3`\nNo options.\n")

    def page(self, *cells):
        return "| theirs | peft.cpp | note |\n|---|---|---|\n" + "".join(f"| `x` | {cell} | `not.checked` |\n" for cell in cells)

    def test_keys(self):
        good = self.page("`adapter.r`, `training.epochs = 3`", '`adapter.name = "ia3"`', "`peft-run merge`; one `[[adapter]]` each",
                         "`adapter.eva_config.rho`, …", "–")
        self.assertEqual(list(key_problems(good, self.experiment)), [])
        bad = self.page("`adapter.rank`", "`run.epochs`", '`adapter.name = "dora"`', "`r`")
        self.assertEqual(list(key_problems(bad, self.experiment)), [
            "line 3: adapter.rank is not a key of docs/experiment.md",
            "line 4: [run] is not a table of docs/experiment.md",
            "line 5: adapter/dora is not a plugin of docs/experiment.md",
            "line 6: `r` is not table.key or table.key = value",
        ])

    @unittest.skipIf(tomllib is None, "needs Python 3.11")
    def test_examples(self):
        def problems(text):
            return list(example_problems(f"```toml\n{text}\n```\n", self.experiment))

        self.assertEqual(problems("[adapter]\nname = 'lora'\nr = 8\neva_config = { rho = 1 }\nrank_pattern = { q_proj = 4 }"), [])
        self.assertEqual(problems("[[adapter]]\nname = 'ia3'\n[[adapter]]\nname = 'lora'\nr = 8"), [])
        self.assertEqual(problems("[adapter]\nname = 'ia3'\nr = 8"), ["adapter.r is not a key of docs/experiment.md"])
        self.assertEqual(problems("[adapter]\neva_config = { roh = 1 }"), ["adapter.eva_config.roh is not a key of docs/experiment.md"])
        self.assertEqual(problems("[train]\nepochs = 1"), ["[train] is not a table of docs/experiment.md"])

    def test_links(self):
        with tempfile.TemporaryDirectory() as folder:
            page = pathlib.Path(folder) / "page.md"
            page.write_text("# One `two`, three\n## Again\n## Again\n[a](page.md) [b](#one-two-three) [c](page.md#again-1) "
                            "[d](https://x.y/#z)\n`[e](no.md)`\n```\n[f](no.md)\n```\n")
            self.assertEqual(list(broken_links(page)), [])
            page.write_text("# One\n[a](no.md) ![b](no.svg) [c](#two) [d](page.md#one-1)\n")
            self.assertEqual(list(broken_links(page)), ["no.md: there is no such file", "no.svg: there is no such file",
                                                        "#two: there is no such heading", "page.md#one-1: there is no such heading"])

    def test_files(self):
        with tempfile.TemporaryDirectory() as folder:
            page = pathlib.Path(folder) / "page.md"
            page.write_text("`tests/tools/docs_test.py -v` `peft/plugin.h` `train/train.cpp` `plugins/<kind>/<name>/` `a/b.json` "
                            "`tools/new-plugin KIND NAME` `plugins/KIND/NAME`\n```\ntests/no.py\n```\n")
            self.assertEqual(list(missing_files(page)), [])
            page.write_text("`tests/no.py` `peft/no.h` `framework/src/no` `train/no.cpp`\n")
            self.assertEqual(list(missing_files(page)), [f"`{path}`: there is no such file" for path in (
                "tests/no.py", "peft/no.h", "framework/src/no", "train/no.cpp")])
            page.write_text("`test_a` `test_a…` `test_b…` `test_c`\n")
            self.assertEqual(list(missing_tests(page, {"test_a", "test_bc"})), ["`test_c`: there is no such test"])

    def test_messages(self):
        source = 'f("must be \\"x\\", " // "not this one"\n  "not y"); c = \'"\'; g(R"(a raw one, longer)" + "end");'
        strings = "\0" + "\0".join(cpp_strings(source)) + "\0"
        self.assertEqual(strings, '\0must be "x", not y\0a raw one, longer\0end\0')

        def problems(line):
            return list(message_problems(f"```text\n{line}\n```\n```\nnot a message\n```\n", strings))

        self.assertEqual(problems('…: must be "x", not y'), ['…: must be "x", not y: no source has \': must be "x", not y\''])
        self.assertEqual(problems('…must be "x", not y…a raw one, longer'), [])
        self.assertEqual(problems("…raw one, longerend"), [])
        self.assertEqual(problems("…raw one, longer ones"), ["…raw one, longer ones: no source has 'raw one, longer ones'"])
        self.assertEqual(problems("not this one, …"), ["not this one, …: no source has 'not this one, '"])
        self.assertEqual(problems("end"), ["end: too short to be looked up"])


if __name__ == "__main__":
    unittest.main()
