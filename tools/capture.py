#!/usr/bin/env python3
"""Runs the commands on a page and writes their output into it: capture.py PAGE BIN

BIN is the folder of peft-run. A fenced block after a line `<!-- file: NAME -->` is written to that file. In a `console` block, each
line that starts with `$ ` is a command, with the lines after a trailing backslash; all other lines are replaced by what it prints.
Everything runs in the page's order in one scratch folder, whose path is shown as /home/me/first; $PEFT_TREE is this tree. A command
that fails ends the script and leaves the page as it was.
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile

SHOWN = "/home/me/first"
BLOCK = re.compile(r"(?:<!-- file: (?P<file>\S+) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"^\$ (?P<words>(?:.*\\\n)*.*)\n", re.MULTILINE)


def session(text, folder, environment):
    """The block with the output of its commands."""
    shown = ""
    for match in COMMAND.finditer(text):
        print("$", match["words"], flush=True)
        done = subprocess.run(["bash", "-c", match["words"]], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            sys.exit(f"{done.stdout}exit code {done.returncode}")
        output = done.stdout.replace(str(folder), SHOWN).rstrip("\n")
        shown += match[0] + (output + "\n" if output else "")
    return shown


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    page, programs = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]).resolve()
    tree = pathlib.Path(__file__).resolve().parent.parent
    environment = dict(os.environ, PATH=f"{programs}:{os.environ['PATH']}", PEFT_TREE=str(tree))
    with tempfile.TemporaryDirectory(prefix="peft_capture_") as scratch:
        folder = pathlib.Path(scratch).resolve()

        def run(match):
            if match["file"]:
                (folder / match["file"]).write_text(match["text"])
            if match["language"] != "console":
                return match[0]
            return match[0].replace(match["text"], session(match["text"], folder, environment))

        page.write_text(BLOCK.sub(run, page.read_text()))


if __name__ == "__main__":
    main()
