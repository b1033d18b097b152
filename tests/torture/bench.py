"""What all rows share: tiny experiments, runs of peft-run, and the exceptions of a failed or skipped row."""

import concurrent.futures
import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SECONDS = 120  # limit of one run; none takes a tenth of it


class Failed(Exception):
    """A promise is broken."""


class Skipped(Exception):
    """The machine does not allow it."""


def require(holds, message):
    if not holds:
        raise Failed(message)


TEXTS = [f"The {word} of {i} and {i} is {2 * i}." + " And so on." * (i % 3)
         for i, word in enumerate(("sum", "total", "whole", "sum", "total", "whole", "sum", "total", "sum", "whole"))]  # words: ok
BASE = {
    "model": {"path": "model"},
    "data": {"train": "train.jsonl", "format": "text", "max_length": 64, "cache": ""},
    "adapter": {"name": "lora", "r": 4, "lora_dropout": 0.2},
    "optimizer": {"name": "adamw", "lr": 1e-2},
    "scheduler": {"name": "cosine"},
    "clipping": {"name": "norm"},
    "precision": {"name": "fp32"},
    "training": {"max_steps": 8, "batch_size": 2, "log_every": 1, "seed": 3},
}

# Options that a method needs on a model this small; a method that is not listed runs with its defaults.
METHODS = {
    "adalora": {"tinit": 1, "tfinal": 1},
    "adaption_prompt": {"adapter_len": 4},
    "bottleneck": {"reduction_factor": 4},
    "c3a": {"block_size": 8},
    "delora": {"r": 4},
    "fourierft": {"n_frequency": 50},
    "gralora": {"r": 4},
    "hra": {"r": 4},
    "lora": {"r": 4, "lora_dropout": 0.2},
    "miss": {"r": 8},
    "oft": {"oft_block_size": 8},
    "p_tuning": {"num_virtual_tokens": 4},
    "prefix_tuning": {"num_virtual_tokens": 4},
    "prompt_tuning": {"num_virtual_tokens": 4},
    "randlora": {"r": 6},
    "road": {"group_size": 8},
    "shira": {"r": 2},
    "trainable_tokens": {"token_indices": list(range(4, 90))},
    "vblora": {"num_vectors": 10, "vector_length": 8},
    "vera": {"r": 8},
    "waveft": {"n_frequency": 50},
}


@dataclasses.dataclass
class Bench:
    work: pathlib.Path  # a temporary folder
    bin: pathlib.Path  # with peft-run
    long: bool
    jobs: int
    seed: int
    mounts: bool  # this process may mount file systems in a private namespace
    only: str  # regular expression that selects methods or variants by name

    def folder(self, name, model="model", texts=TEXTS):
        """Makes a folder that holds the model and the data."""
        made = self.work / name
        made.mkdir(parents=True)
        (made / "model").symlink_to(self.work / model)
        (made / "train.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        return made

    def model(self, name="model", **sizes):
        """Makes a model for folder()."""
        code = "import sys, json, tiny_llama as t; t.save_llama(sys.argv[1], **json.loads(sys.argv[2]))"
        run([sys.executable, "-c", code, self.work / name, json.dumps({"attention_bias": True, "mlp_bias": True} | sizes)],
            env={"PYTHONPATH": str(ROOT / "tests" / "support")})

    def peft_run(self, *arguments, **options):
        return run([self.bin / "peft-run", *arguments], **options)

    def start(self, *arguments, threads=1, stdout=subprocess.PIPE):
        return subprocess.Popen(list(map(str, [self.bin / "peft-run", *arguments])), stdin=subprocess.DEVNULL,
                                stdout=stdout, stderr=subprocess.PIPE, text=True, env=environment(threads))

    def plugins(self, kind):
        """Returns the names of all plugins of this kind."""
        rows = [line.split() for line in self.peft_run("list").stdout.splitlines()]
        names = {words[1] for words in rows if len(words) == 4 and words[0] == kind}
        require(names, f"'peft-run list' shows no plugin of kind {kind}")
        return sorted(names)

    def wanted(self, names):
        """Returns the names that `only` selects."""
        found = [name for name in names if re.search(self.only, name)]
        require(found, f"--only '{self.only}' leaves none of {', '.join(names)}")
        return found

    def each(self, work, items):
        """Returns [work(item)], some at a time. All items run even if some fail; all failures are raised together."""
        with concurrent.futures.ThreadPoolExecutor(self.jobs) as pool:
            running = [pool.submit(work, item) for item in items]
        failures = [str(one.exception()) for one in running if isinstance(one.exception(), Failed)]
        require(not failures, "\n".join(failures))
        return [one.result() for one in running]


def environment(threads, more=None):
    return os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"} | (more or {})


def run(command, code=0, threads=1, env=None, timeout=SECONDS, umask=-1):
    """Returns the finished process; `code` is the required exit code, or None for any."""
    command = list(map(str, command))
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=timeout,
                              umask=umask, env=environment(threads, env))
    except subprocess.TimeoutExpired:
        raise Failed(f"{' '.join(command)}\ndid not end after {timeout} s") from None
    require(code is None or done.returncode == code,
            f"{' '.join(command)}\nexit code {done.returncode}, not {code}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return done


def experiment(folder, output, changes=None):
    """Writes an experiment file: BASE with the tables of `changes` in place of its own; only [training] is merged key by key."""
    changes = changes or {}
    tables = BASE | changes
    tables["training"] = BASE["training"] | changes.get("training", {}) | {"output_dir": output}
    text = ""
    for name, keys in tables.items():
        text += f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
    path = folder / f"experiment-{output}.toml"  # a name without the folder's prefix, which the fault shim matches
    path.write_text(text)
    return path


def method(name):
    return {"adapter": {"name": name} | METHODS.get(name, {})}
