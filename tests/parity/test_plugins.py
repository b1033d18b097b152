"""Broken or untrusted plugins, with the real peft-run: each is refused with its file or name and exit code 4, no adapter is written,
and the others stay usable; a folder or file that others may change is refused, also in the folders above it, for root as for
another user."""

import grp
import json
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from tiny_llama import save_llama

from conftest import from_environment

NOBODY, OTHER_USER = 65534, 12345


@pytest.fixture(scope="session")
def fixtures():
    return (from_environment("PEFT_BUILD") / "tests" / "plugins").resolve()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plugins")
    save_llama(folder / "model")
    (folder / "train.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n{"text": "three"}\n')
    (folder / "experiment.toml").write_text(
        '[model]\npath = "model"\n[data]\ntrain = "train.jsonl"\n[adapter]\nname = "lora"\n'
        '[training]\noutput_dir = "out"\nmax_steps = 3\nbatch_size = 1\noverwrite_output_dir = true\n'
    )
    return folder


def train(run, folder, plugins, sets, code, fixture=""):
    """Runs an experiment; `fixture` selects how the plugin fails."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    words = [word for item in (f'plugins.paths=["{plugins}"]', *sets) for word in ("--set", item)]
    done = run("peft-run", folder / "experiment.toml", *words, code=code, env=os.environ | {"PEFT_FIXTURE": fixture})
    assert (folder / "out" / "adapter_model.safetensors").exists() == (code == 0)
    return done.stderr


def patched(fixtures, folder, pattern, to):
    """The valid plugin with a part of its record replaced, in a separate folder."""
    good = (fixtures / "peft_scheduler_good.so").read_bytes()
    record = good.index(b"peft plugin 1\0")
    changed = good[:record] + re.sub(pattern, to, good[record:], count=1)
    assert len(changed) == len(good) and changed != good
    plugins = folder / f"patched-{abs(hash(pattern))}"
    plugins.mkdir(mode=0o755, exist_ok=True)
    (plugins / "peft_scheduler_good.so").write_bytes(changed)
    (plugins / "peft_scheduler_good.so").chmod(0o644)
    return plugins


@pytest.mark.parametrize(
    "pattern,to",
    [(rb"peft ABI \d", rb"peft ABI X"), (rb"libtorch \d", rb"libtorch X"), (rb"string ABI \d", rb"string ABI X")],
    ids=["peft", "libtorch", "string"],
)
def test_built_for_another_abi(run, folder, fixtures, pattern, to):
    plugins = patched(fixtures, folder, pattern, to)
    printed = train(run, folder, plugins, ["scheduler.name=good"], code=4)
    assert printed.startswith(f"{plugins}/peft_scheduler_good.so: built for {{") and to.decode() in printed
    assert not (folder / "out").exists()


@pytest.mark.parametrize("part", [0.3, 0.7, 0.999])
def test_truncated_plugin(run, folder, fixtures, part):
    plugins = folder / "cut"
    plugins.mkdir(mode=0o755, exist_ok=True)
    good = (fixtures / "peft_scheduler_good.so").read_bytes()
    (plugins / "peft_scheduler_good.so").write_bytes(good[: int(len(good) * part)])
    (plugins / "peft_scheduler_good.so").chmod(0o644)
    assert "peft_scheduler_good.so: the file is truncated" in train(run, folder, plugins, ["scheduler.name=good"], code=4)


SCHEDULERS = [
    ("no_record", "", "it has no record of PEFT_PLUGIN"),
    ("no_symbol", "", "it does not export peft_plugin_v1"),
    ("other_info", "", "its peft_plugin_v1 has 40 bytes"),
    ("unresolved", "", "undefined symbol: _Z28peft_fixture_that_nobody_has"),
    ("misbehaving", "add: runtime_error", "could not register: thrown by the plugin"),
    ("misbehaving", "add: int", "could not register: something that is not a std::exception"),
    ("misbehaving", "add: twice", "'misbehaving' is registered twice"),
    ("misbehaving", "make: runtime_error", "could not be created: thrown by the plugin"),
    ("misbehaving", "make: c10::Error", "could not be created: thrown by the plugin"),
    ("misbehaving", "make: int", "could not be created: something that is not a std::exception"),
    ("misbehaving", "make: null", "returned nothing"),
]


@pytest.mark.parametrize("name,fixture,part", SCHEDULERS, ids=[f"{row[0]} {row[1]}".strip() for row in SCHEDULERS])
def test_broken(run, folder, fixtures, name, fixture, part):
    printed = train(run, folder, fixtures, [f"scheduler.name={name}"], code=4, fixture=fixture)
    assert part in printed
    assert f"peft_scheduler_{name}.so: " in printed or f"plugin scheduler/{name}: " in printed
    assert not (folder / "out").exists()


STEPS = {
    "runtime_error": (4, "peft_optimizer_throwing.so: step failed: thrown by the plugin"),
    "c10::Error": (4, "peft_optimizer_throwing.so: step failed: thrown by the plugin"),
    "int": (4, "peft_optimizer_throwing.so: step failed: something that is not a std::exception"),
    "DivergedError": (6, "thrown by the plugin"),
    "bad_alloc": (5, "not enough memory during optimizer"),
}


@pytest.mark.parametrize("fixture", STEPS)
def test_plugin_that_throws_in_a_step(run, folder, fixtures, fixture):
    code, part = STEPS[fixture]
    assert part in train(run, folder, fixtures, ["optimizer.name=throwing"], code=code, fixture=fixture)


@pytest.mark.parametrize("call", ["train", "zero_grad", "eval", "state_dict", "state_bytes", "default_lr",
                                  "needs_sampled_label_gradients"])
def test_optimizer_that_throws(run, folder, fixtures, call):
    printed = train(run, folder, fixtures, ["optimizer.name=throwing", "training.save_every=1"], code=4, fixture=call)
    assert f"peft_optimizer_throwing.so: {call} failed: thrown by the plugin" in printed


@pytest.mark.parametrize("call", ["calibrate", "attach", "groups"])
def test_method_that_throws(run, folder, fixtures, call):
    printed = train(run, folder, fixtures, ["adapter.name=throwing"], code=4, fixture=call)
    assert f"peft_adapter_throwing.so: {call} failed: thrown by the plugin" in printed
    assert not (folder / "out").exists()


LAYERS = ["hf_config", "as_lora", "shape", "forward", "autograd"]


@pytest.mark.parametrize("call", LAYERS)
def test_layer_that_throws(run, folder, fixtures, call):
    """In the fused path, in the unfused path, and in a custom backward pass."""
    printed = train(run, folder, fixtures, ["adapter.name=throwing"], code=4, fixture=call)
    if call == "shape":
        assert "peft_adapter_throwing.so: as_lora failed: A is [2, 7] and B [" in printed
    elif call == "autograd":
        assert "peft_precision_fp32.so: backward failed: thrown by the plugin" in printed
    else:
        assert f"peft_adapter_throwing.so: {call} failed: thrown by the plugin" in printed


def test_layer_that_cannot_be_merged(run, folder, fixtures):
    train(run, folder, fixtures, ["adapter.name=throwing"], code=0)
    printed = run("peft-run", "merge", "--model", folder / "model", "--adapter", folder / "out", "--output", folder / "merged",
               "--plugin-path", fixtures, code=4, env=os.environ | {"PEFT_FIXTURE": "merge_into"}).stderr
    assert "peft_adapter_throwing.so: merge_into failed: thrown by the plugin" in printed and not (folder / "merged").exists()


@pytest.mark.parametrize("call", ["forward", "backward", "unscale_gradients", "base_dtype", "adapter_dtype"])
def test_precision_that_throws(run, folder, fixtures, call):
    printed = train(run, folder, fixtures, ["precision.name=throwing"], code=4, fixture=call)
    assert f"peft_precision_throwing.so: {call} failed: thrown by the plugin" in printed


def test_core_error_is_not_blamed_on_precision(run, folder, fixtures):
    printed = train(run, folder, fixtures, ["precision.name=throwing", "adapter.name=throwing"], code=4, fixture="as_lora")
    assert "peft_adapter_throwing.so: as_lora failed: thrown by the plugin" in printed


def test_scheduler_that_throws(run, folder, fixtures):
    words = ["--set", f'plugins.paths=["{fixtures}"]', "--set", "scheduler.name=misbehaving"]
    for call in ("lr", "needs_evaluations"):
        environment = os.environ | {"PEFT_FIXTURE": f"{call}: runtime_error"}
        for command in ([], ["plan"]):
            printed = run("peft-run", *command, folder / "experiment.toml", *words, code=4, env=environment).stderr
            assert f"peft_scheduler_misbehaving.so: {call} failed: thrown by the plugin" in printed


def test_list_survives_a_plugin_that_fails(run, fixtures):
    printed = run("peft-run", "describe", "--plugin-path", fixtures, env=os.environ | {"PEFT_FIXTURE": "make: runtime_error"}).stdout
    assert "scheduler/misbehaving\n  not usable: plugin scheduler/misbehaving: could not be created: thrown by the plugin" in printed
    assert "scheduler/cosine\n" in printed and "precision/fp32\n" in printed


def test_no_best_checkpoint_without_finite_evaluation(run, folder, fixtures):
    """If the loss of the evaluation examples is not finite, no adapter is the best one."""
    (folder / "eval.jsonl").write_text(json.dumps({"text": "a long one " * 20}) + "\n")
    sets = ["adapter.name=throwing", f"data.eval={folder / 'eval.jsonl'}", "training.eval_every=1", "training.save_every=1"]
    printed = train(run, folder, fixtures, [*sets, "training.load_best_model_at_end=true"], code=6, fixture="nan where long")
    assert "no evaluation at a checkpoint had a finite loss" in printed and str(folder / "out" / "checkpoint-3") in printed
    train(run, folder, fixtures, sets, code=0, fixture="nan where long")


def test_static_constructor_that_throws(run, folder, fixtures):
    printed = train(run, folder, fixtures / "fatal", ["scheduler.name=throws_on_load"], code=4)
    assert "peft_scheduler_throws_on_load.so: a static constructor threw: thrown by a static constructor" in printed


ENDS = {
    "exit": "ended the process", "quick_exit": "ended the process", "_exit": "ended the process", "_Exit": "ended the process",
    "abort": "crashed with SIGABRT", "segfault": "crashed with SIGSEGV", "division": "crashed with SIGFPE",
    "recursion": "crashed with SIGSEGV", "crash in a thread": "crashed with SIGSEGV",
    "terminate": "ended the process by std::terminate",
    "thread": "an exception left a thread, or a function that must not throw: thrown by the plugin",
    "destructor": "an exception left a thread, or a function that must not throw: thrown by the plugin",
}


@pytest.mark.parametrize("end", ENDS)
def test_plugin_that_ends_the_process(run, folder, fixtures, end):
    """A plugin that crashes or ends the process is named, with exit code 4, whatever code it asks for."""
    if "SIG" in ENDS[end] and "ASAN_OPTIONS" in os.environ:
        pytest.skip("the sanitizer reports crashes itself")
    printed = train(run, folder, fixtures, ["optimizer.name=ending"], code=4, fixture=f"step: {end}")
    assert printed.splitlines()[-1] == f"{fixtures}/peft_optimizer_ending.so: {ENDS[end]}"


@pytest.mark.parametrize("call", ["load", "add", "make"])
@pytest.mark.parametrize("end", ["exit", "_exit", "segfault"])
def test_plugin_that_ends_the_process_before_a_run(run, folder, fixtures, call, end):
    printed = train(run, folder, fixtures, ["optimizer.name=ending"], code=4, fixture=f"{call}: {end}")
    assert f"{fixtures}/peft_optimizer_ending.so: {ENDS[end]}\n" in printed
    assert not (folder / "out").exists()
    listed = run("peft-run", "list", "--plugin-path", fixtures, env=os.environ | {"PEFT_FIXTURE": f"make: {end}"}).stdout
    assert "ending" in listed


def test_scheduler_with_negative_rate(run, folder, fixtures):
    """A rate below 0 would train uphill."""
    printed = train(run, folder, fixtures, ["scheduler.name=misbehaving"], code=4, fixture="lr: negative")
    assert "peft_scheduler_misbehaving.so: lr failed: the learning rate of step 1 of 3 is -" in printed


def test_other_plugins_still_work(run, folder, fixtures, tmp_path):
    """Valid plugins work next to broken ones; of two with the same name the first one found is used, and the other is reported."""
    train(run, folder, fixtures, ["scheduler.name=good", "optimizer.name=throwing"], code=0)
    shutil.copy(fixtures / "peft_scheduler_good.so", tmp_path)
    tmp_path.chmod(0o755)
    printed = run("peft-run", "list", "--plugin-path", tmp_path, "--plugin-path", fixtures).stdout
    usable, broken = printed.split("\nnot usable:\n")
    for name in ("scheduler_good", "scheduler_misbehaving", "optimizer_throwing", "adapter_lora", "optimizer_adamw"):
        assert f"peft_{name}.so" in usable
    assert str(tmp_path / "peft_scheduler_good.so") in usable and str(fixtures / "peft_scheduler_good.so") in broken
    for name in ("no_record", "no_symbol", "other_info", "unresolved"):
        assert f"peft_scheduler_{name}.so: " in broken


MISTAKES = [
    ("adapter", "unregistered", "self_attn.q_proj' uses a tensor that requires a gradient but is not"),
    ("adapter", "shape", "forward failed: 'model.layers.0.self_attn.q_proj': the result is fp32 ["),
    ("adapter", "unused", "got no gradient"),
    ("objective", "own parameter", "loss failed: the loss depends on a tensor that requires a gradient"),
    ("optimizer", "dtype", "step failed: it changed the dtype or the shape of parameter"),
    ("scheduler", "negative", "lr failed: the learning rate of step 3 of 3 is -"),
    ("clipping", "half", "clip failed: it returned "),
]


@pytest.mark.parametrize("checkpointing", ["none", "full"])
@pytest.mark.parametrize("kind,mistake,part", MISTAKES, ids=[f"{row[0]} {row[1]}" for row in MISTAKES])
def test_mistake_ends_the_run(run, folder, fixtures, kind, mistake, part, checkpointing):
    """More of them: tests/framework/train/mistakes_test.cpp."""
    sets = [f"{kind}.name=mistaken", f'{kind}.mistake="{mistake}"', f"memory.activation_checkpointing={checkpointing}"]
    if kind == "scheduler":
        sets += ["data.eval_split=0.3", "training.eval_every=1"]
    printed = train(run, folder, fixtures / "mistaken", sets, code=4)
    assert f"peft_{kind}_mistaken.so: " in printed and part in printed


def test_dtype_of_a_layer(run, folder, fixtures):
    sets = ["adapter.name=mistaken", "adapter.mistake=promotes"]
    train(run, folder, fixtures / "mistaken", sets, code=0)
    printed = train(run, folder, fixtures / "mistaken", [*sets, "precision.name=bf16"], code=4)
    assert "peft_adapter_mistaken.so: forward failed: 'model.layers.0.self_attn.q_proj': the result is fp32 [" in printed
    assert "it must be bf16 [" in printed


@pytest.mark.parametrize("sets,reason", [
    (["optimizer.lr=0"], "the learning rate of every step was 0"),
    (["adapter.lora_alpha=0"], "the gradient norm of every step was 0, so the loss does not depend on the adapter"),
    (["adapter.lora_alpha=0", "optimizer.weight_decay=0.1"], "the gradient norm of every step was 0"),
    (["optimizer.lr=1e-60"], "no step changed a value of the adapter"),
])
def test_nothing_learned_is_said(run, folder, fixtures, sets, reason):
    shutil.rmtree(folder / "out", ignore_errors=True)
    done = run("peft-run", folder / "experiment.toml", *(word for item in sets for word in ("--set", item)))
    assert f"warning: nothing was learned: {reason}" in done.stderr
    assert "only the adapter learned" not in done.stdout and "verified: only the adapter was trained: " in done.stdout
    card = (folder / "out" / "README.md").read_text()
    assert f"| warning | nothing was learned: {reason}" in card


def test_unchanged_tensors_are_named(run, folder):
    shutil.rmtree(folder / "out", ignore_errors=True)
    done = run("peft-run", folder / "experiment.toml", "--set", "training.max_steps=1")
    said = re.search(r"verified: only the adapter learned: (\d+) of the adapter's (\d+) tensors are different from the start; "
                     r"unchanged: '([^']*)'", done.stdout)
    assert int(said[2]) == 2 * int(said[1]) and "lora_A" in said[3]
    assert f"| learned | {said[1]} of the adapter's {said[2]} tensors" in (folder / "out" / "README.md").read_text()
    done = run("peft-run", folder / "experiment.toml")
    assert f"verified: only the adapter learned: {said[2]} of the adapter's {said[2]} tensors are different" in done.stdout
    assert "warning" not in done.stderr


class Place:
    """A folder that other users can reach, with plugins/peft_scheduler_good.so in it."""

    def __init__(self, good):
        self.top = Path(tempfile.mkdtemp(prefix="peft_rights_"))
        self.plugins = self.top / "plugins"
        self.file = self.plugins / "peft_scheduler_good.so"
        self.plugins.mkdir()
        shutil.copy(good, self.file)
        for path, mode in ((self.top, 0o755), (self.plugins, 0o755), (self.file, 0o644)):
            path.chmod(mode)

    def output_of(self, bin_dir, user, plugins=None):
        """The program's error, run by `user`; "" if there is none."""
        command = [bin_dir / "peft-run", "describe", "scheduler/good", "--plugin-path", plugins or self.plugins]
        if user != os.geteuid():
            command = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *command]
        done = subprocess.run(command, capture_output=True, text=True, cwd="/")
        assert done.returncode == (4 if done.stderr else 0), done.stderr
        return done.stderr


@pytest.fixture
def place(fixtures):
    place = Place(fixtures / "peft_scheduler_good.so")
    yield place
    shutil.rmtree(place.top)


@pytest.fixture(params=["itself", "nobody"])
def user(request, bin_dir):
    if request.param == "itself":
        return os.geteuid()
    if os.geteuid() != 0:
        pytest.skip("SKIPPED: only root can act as another user")
    if shutil.which("setpriv") is None:
        pytest.skip("SKIPPED: there is no setpriv (util-linux)")
    seen = subprocess.run(["setpriv", f"--reuid={NOBODY}", "--clear-groups", bin_dir / "peft-run", "--version"],
                          capture_output=True)
    if seen.returncode != 0:
        pytest.skip("SKIPPED: another user cannot run the program where it is built")
    return NOBODY


def test_trusted_plugin_folder_is_accepted(bin_dir, place, user):
    assert place.output_of(bin_dir, user) == ""
    place.top.chmod(0o1777)  # as /tmp
    assert place.output_of(bin_dir, user) == ""


def test_private_group_may_write(bin_dir, place):
    """Where each user has a group of their own, the usual umask is 002."""
    account = pwd.getpwuid(os.geteuid())
    primary = grp.getgrgid(account.pw_gid)
    if primary.gr_name != account.pw_name or set(primary.gr_mem) - {account.pw_name}:
        pytest.skip("SKIPPED: this user has no private group")
    for path, mode in ((place.top, 0o775), (place.plugins, 0o775), (place.file, 0o664)):
        path.chmod(mode)
    assert place.output_of(bin_dir, os.geteuid()) == ""


@pytest.mark.parametrize("what,mode", [("file", 0o664), ("file", 0o646), ("plugins", 0o775), ("plugins", 0o757),
                                       ("plugins", 0o1777), ("top", 0o775), ("top", 0o757)])
def test_plugin_writable_by_others_is_refused(bin_dir, place, user, what, mode):
    if mode & 0o020 and not mode & 0o002:
        if os.geteuid() != 0:
            pytest.skip("SKIPPED: only root can give a file to a group that it is not in")
        os.chown(getattr(place, what), -1, OTHER_USER)
    getattr(place, what).chmod(mode)
    printed = place.output_of(bin_dir, user)
    assert "refused, because users other than its owner can write" in printed and "chmod go-w" in printed
    assert str(place.plugins) in printed and (str(place.top) + " (" in printed) == (what == "top")


def test_plugin_of_another_user(bin_dir, place, user):
    if os.geteuid() != 0:
        pytest.skip("SKIPPED: only root can give a file away")
    for what in ("file", "plugins", "top"):
        path = getattr(place, what)
        os.chown(path, OTHER_USER, OTHER_USER)
        assert f"belongs to another user (uid {OTHER_USER})" in place.output_of(bin_dir, user)
        os.chown(path, NOBODY, NOBODY)
        assert ("belongs to another user" in place.output_of(bin_dir, user)) == (user != NOBODY)
        os.chown(path, 0, 0)
    assert place.output_of(bin_dir, user) == ""


def test_plugin_that_is_not_a_regular_file(bin_dir, place, user, fixtures):
    place.file.unlink()
    place.file.symlink_to(fixtures / "peft_scheduler_good.so")
    assert "because it is a symbolic link" in place.output_of(bin_dir, user)
    place.file.unlink()
    os.mkfifo(place.file, 0o644)
    assert "because it is not a regular file" in place.output_of(bin_dir, user)
    place.file.unlink()
    place.file.mkdir()
    assert "because it is not a regular file" in place.output_of(bin_dir, user)


def test_symlinked_plugin_folder(bin_dir, place, user):
    link = place.top / "link"
    link.symlink_to(place.plugins)
    assert place.output_of(bin_dir, user, link) == ""
    place.top.chmod(0o777)
    assert str(place.top) + " (" in place.output_of(bin_dir, user, link)


def test_relative_plugin_path_is_refused(run, fixtures):
    for path in ("plugins", ":", f"{fixtures}::/x"):
        printed = run("peft-run", "list", code=4, env=os.environ | {"PEFT_PLUGIN_PATH": path}).stderr
        assert "PEFT_PLUGIN_PATH" in printed and "must be an absolute path" in printed
