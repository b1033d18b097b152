"""What every row of the torture has: tiny experiments, runs of peft-run, and the way to say that something does not hold."""

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
SECONDS = 120  # no run here takes a tenth of it


class Failed(Exception):
    """A promise is broken."""


class Skipped(Exception):
    """The machine does not allow it."""


def require(holds, message):
    if not holds:
        raise Failed(message)


TEXTS = [f"The {word} of {i} and {i} is {2 * i}." + " And so on." * (i % 3)
         for i, word in enumerate(("sum", "total", "whole", "sum", "total", "whole", "sum", "total", "sum", "whole"))]
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

# What each method needs beside its defaults on a model this small; one that is not here is taken as it is.
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
    work: pathlib.Path  # a folder of our own
    bin: pathlib.Path  # with peft-run
    long: bool
    jobs: int
    seed: int
    mounts: bool  # this process may mount, and nobody else sees it
    only: str  # a regular expression of the names that rows with many of them take

    def folder(self, name, model="model", texts=TEXTS):
        """A new one that holds the model and the data."""
        made = self.work / name
        made.mkdir(parents=True)
        (made / "model").symlink_to(self.work / model)
        (made / "train.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        return made

    def model(self, name="model", **sizes):
        """Makes one for folder()."""
        code = "import sys, json, tiny_llama as t; t.save_llama(sys.argv[1], **json.loads(sys.argv[2]))"
        run([sys.executable, "-c", code, self.work / name, json.dumps({"attention_bias": True, "mlp_bias": True} | sizes)],
            env={"PYTHONPATH": str(ROOT / "tests" / "support")})

    def peft_run(self, *arguments, **options):
        return run([self.bin / "peft-run", *arguments], **options)

    def start(self, *arguments, threads=1, stdout=subprocess.PIPE):
        return subprocess.Popen(list(map(str, [self.bin / "peft-run", *arguments])), stdin=subprocess.DEVNULL,
                                stdout=stdout, stderr=subprocess.PIPE, text=True, env=environment(threads))

    def plugins(self, kind):
        """The names of all plugins of this kind."""
        rows = [line.split() for line in self.peft_run("list").stdout.splitlines()]
        names = {words[1] for words in rows if len(words) == 4 and words[0] == kind}
        require(names, f"'peft-run list' tells no plugin of kind {kind}")
        return sorted(names)

    def wanted(self, names):
        """Those of them that `only` lets through."""
        found = [name for name in names if re.search(self.only, name)]
        require(found, f"--only '{self.only}' leaves none of {', '.join(names)}")
        return found

    def each(self, work, items):
        """[work(item)], some at a time; what fails keeps no other from its turn, and is told in the end."""
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
        raise Failed(f"{' '.join(command)}\nhas not ended after {timeout} s") from None
    require(code is None or done.returncode == code,
            f"{' '.join(command)}\nexit code {done.returncode}, not {code}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return done


def experiment(folder, output, changes=None):
    """The file of BASE with `changes`, whose tables take the place of BASE's; only [training] is changed key by key."""
    changes = changes or {}
    tables = BASE | changes
    tables["training"] = BASE["training"] | changes.get("training", {}) | {"output_dir": output}
    text = ""
    for name, keys in tables.items():
        text += f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
    path = folder / f"experiment-{output}.toml"  # a name that does not begin as the folder's does
    path.write_text(text)
    return path


def method(name):
    return {"adapter": {"name": name} | METHODS.get(name, {})}
