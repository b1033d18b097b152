#!/usr/bin/env python3
"""Copies source files into the code blocks of a page: snippets.py [--check] PAGE...

A line `<!-- PATH -->` before a fenced block names the file that the block shows. With --check writes nothing, and reports a
page that differs with exit code 1.
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
SNIPPET = re.compile(r"(<!-- (?P<path>\S+) -->\n```\w*\n)(?P<code>.*?)(?=^```$)", re.DOTALL | re.MULTILINE)


def fill(text):
    return SNIPPET.sub(lambda match: match[1] + (ROOT / match["path"]).read_text(), text)


def main():
    check = sys.argv[1:2] == ["--check"]
    pages = [pathlib.Path(name) for name in sys.argv[1 + check:]]
    if not pages:
        sys.exit(__doc__)
    for page in pages:
        text = page.read_text()
        if not SNIPPET.search(text):
            sys.exit(f"{page}: no code block names a file")
        if fill(text) == text:
            continue
        if check:
            sys.exit(f"{page}: its code differs from the files: run tools/docs")
        page.write_text(fill(text))


if __name__ == "__main__":
    main()
