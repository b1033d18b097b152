"""Power loss: records a run's calls with the data they wrote, and rebuilds the disk as it may be after each of them, without what was
not yet synced. At every cut each named checkpoint is intact, no completed one is lost, and the run resumes from there to the
uninterrupted end.

What a disk may hold: a file's bytes are certain once the file was synced after them; a name (created, renamed or deleted) once its
folder was. Any part of the rest may be there or not."""

import itertools
import shutil

import output
from bench import Failed, experiment, require
from shim import Server, preloaded

TRAINING = {"max_steps": 5, "save_every": 1, "save_total_limit": 2}
LAST = "checkpoint-5"


class Call:
    """One record of trace.c."""

    def __init__(self, kind, offset, path, other, data):
        self.kind, self.offset, self.path, self.other, self.data = kind, offset, path, other, data


def read_trace(path):
    calls, data, at = [], path.read_bytes(), 0
    while at < len(data):
        end = data.index(b"\n", at)
        kind, *numbers = data[at:end].decode().split()
        offset, *sizes = map(int, numbers)
        parts, at = [], end + 1
        for size in sizes:
            parts.append(data[at:at + size])
            at += size
        calls.append(Call(kind, offset, parts[0].decode(), parts[1].decode(), parts[2]))
    return calls


class Change:
    """A change that the disk may or may not keep, of a file's bytes or of a folder's names; `call` is its place in the trace.
    Files and folders are numbers here: a name may come to mean another."""

    def __init__(self, call, node, names=None, data=None):
        self.call, self.node, self.names, self.data = call, node, names, data
        self.sure = None  # the call that made it sure


class Disk:
    """Everything a trace did below `root`, as changes."""

    def __init__(self, root, calls):
        self.root, self.changes, self.folders, self.files = str(root), [], {0: {}}, itertools.count(1)
        self.kept = {}  # contents, each once
        for number, call in enumerate(calls):
            self.take(number, call)

    def find(self, path):
        """(folder's number, name, what it means now or None); the root has the name ""."""
        require(path == self.root or path.startswith(self.root + "/"), f"{path} is outside {self.root}")
        *parents, name = path[len(self.root):].strip("/").split("/")
        at = 0
        for part in parents:
            at = self.folders[at][part]
        return at, name, self.folders[at].get(name)

    def change(self, number, node, **what):
        self.changes.append(Change(number, node, **what))

    def name(self, number, folder, names):
        """Sets names of a folder in one step; None deletes a name."""
        self.change(number, folder, names=names)
        for name, node in names.items():
            self.folders[folder].pop(name, None)
            if node is not None:
                self.folders[folder][name] = node

    def take(self, number, call):
        if call.path == self.root:
            return self.sync(number, 0) if call.kind == "fsync" else None
        folder, name, node = self.find(call.path)
        if call.kind == "open":
            if node is None:
                node = next(self.files)
                self.name(number, folder, {name: node})
            elif call.other == "empty":
                self.change(number, node, data=(0, None))
        elif call.kind in ("write", "truncate"):
            self.change(number, node, data=(call.offset, call.data if call.kind == "write" else None))
        elif call.kind == "mkdir":
            node = next(self.files)
            self.folders[node] = {}
            self.name(number, folder, {name: node})
        elif call.kind == "unlink":
            self.name(number, folder, {name: None})
        elif call.kind in ("rename", "exchange"):
            there, other, node_there = self.find(call.other)
            require(there == folder, f"{call.path} was moved into another folder, which this replay cannot represent")
            self.name(number, folder, {name: node_there if call.kind == "exchange" else None, other: node})
        elif call.kind == "fsync":
            self.sync(number, node)
        else:
            raise Failed(f"the trace holds '{call.kind}', which this replay does not know")

    def sync(self, number, node):
        for change in self.changes:
            if change.node == node and change.sure is None:
                change.sure = number

    def pending(self, cut):
        """What was done before call `cut`, but was not sure then."""
        return [change for change in self.changes
                if change.call < cut and (change.sure is None or change.sure >= cut)]

    def state(self, cut, lost):
        """{path below the root: bytes, or None for a folder} of the disk at `cut` without the changes `lost`."""
        contents, folders, gone = {}, {0: {}}, set(map(id, lost))
        for change in self.changes:
            if change.call >= cut:
                break
            if id(change) in gone:
                continue
            if change.names is None:
                write(contents.setdefault(change.node, bytearray()), *change.data)
            for name, node in (change.names or {}).items():
                folders.setdefault(change.node, {}).pop(name, None)
                if node is not None:
                    folders[change.node][name] = node
        found = {}
        self.walk(0, "", folders, contents, found)
        return found

    def walk(self, folder, path, folders, contents, found):
        for name, node in folders.get(folder, {}).items():
            if node in self.folders:
                found[path + name] = None
                self.walk(node, path + name + "/", folders, contents, found)
            else:
                content = bytes(contents.get(node, b""))
                found[path + name] = self.kept.setdefault(content, content)


def write(content, offset, data):
    if data is None:
        del content[offset:]
        return
    content.extend(b"\0" * (offset - len(content)))
    content[offset:offset + len(data)] = data


def losses(pending, every):
    """What may be lost of what is not sure: all, the bytes, the names, nothing; with `every` also each change by itself, all
    but each, and the later part from each on."""
    found = [pending, [c for c in pending if c.names is None], [c for c in pending if c.names is not None], []]
    if every:
        for i, change in enumerate(pending):
            found += [[change], pending[:i] + pending[i + 1:], pending[i:]]
    return found


def named_checkpoints(state):
    """Returns {step: {name: bytes}} of the checkpoints under their final names."""
    found = {}
    for path, data in state.items():
        folder, _, name = path.partition("/")
        if folder.startswith("checkpoint-") and folder[11:].isdigit():
            files = found.setdefault(int(folder[11:]), {})
            if name:
                files[name] = data
    return found


def promised(calls, cut):
    """The newest checkpoint that the run took for done before `cut`: after it got its name something else was begun."""
    newest, waiting = 0, None
    for call in calls[:cut]:
        target = call.other.rsplit("/", 1)[-1]
        if call.kind in ("rename", "exchange") and target.startswith("checkpoint-") and target[11:].isdigit():
            waiting = int(target[11:])
        elif waiting is not None and call.kind != "fsync":
            newest, waiting = waiting, None
    return newest


def check_state(state, promise, where):
    """Checks that each named checkpoint is intact and that the newest is not older than promised."""
    found = named_checkpoints(state)
    newest = max(found, default=0)
    require(newest >= promise, f"{where}: checkpoint {promise} was done, the newest left is {newest}")
    for step, files in found.items():
        require(not output.flaw(files), f"{where}: checkpoint {step} is not intact: {output.flaw(files)}")
    if "adapter_config.json" in state:
        require(state.get("adapter_model.safetensors"), f"{where}: an adapter without its weights")


def cuts(disk, calls, every):
    """(where, state, promise) of each cut and loss."""
    for cut in range(len(calls) + 1):
        promise, pending = promised(calls, cut), disk.pending(cut)
        before = calls[cut - 1] if cut else None
        where = f"after call {cut} ({before.kind} {before.path[len(disk.root):]})" if before else "before the first call"
        seen = set()
        for lost in losses(pending, every):
            key = frozenset(map(id, lost))
            if key not in seen:
                seen.add(key)
                yield f"{where}, {len(lost)} of {len(pending)} lost", disk.state(cut, lost), promise


def prove_that_it_sees(root, calls):
    """Checks that a run that omits some kind of sync would fail; otherwise this row would prove nothing."""
    made = {call.path for call in calls if call.kind == "mkdir"} | {call.other for call in calls if call.kind == "rename"}
    folders = {path for path in made if path.rsplit("/", 1)[-1].startswith("checkpoint-")} | {str(root)}
    deleted = {at + 1 for at, call in enumerate(calls) if call.other.endswith(".deleting")}
    without = {
        "nothing": lambda at, path: False,
        "no file": lambda at, path: path in folders,
        "no folder": lambda at, path: path not in folders,
        "not the folder of its checkpoints": lambda at, path: path != str(root),
        "not the new name of what it deletes": lambda at, path: at not in deleted,
    }
    for what, kept in without.items():
        worse = [call for at, call in enumerate(calls) if call.kind != "fsync" or kept(at, call.path)]
        require(len(worse) < len(calls), f"the trace holds no sync to leave out ({what})")
        try:
            for where, state, promise in cuts(Disk(root, worse), worse, every="deletes" in what):
                check_state(state, promise, where)
        except Failed:
            continue
        raise Failed(f"a run that syncs {what} would have passed")


def on_disk(folder):
    return {str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes() for path in folder.rglob("*")}


def put(folder, state):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for path, data in sorted(state.items()):
        if data is None:
            (folder / path).mkdir()
        else:
            (folder / path).write_bytes(data)


def row(bench):
    folder = bench.folder("replay")
    bench.peft_run(experiment(folder, "uninterrupted", {"training": TRAINING | {"save_total_limit": 99}}))
    uninterrupted, run, path = folder / "uninterrupted", folder / "run", experiment(folder, "run", {"training": TRAINING})
    run.mkdir()  # so that all traced calls are below it
    bench.peft_run(path, env=preloaded(bench, run, trace=folder / "trace"))
    calls = read_trace(folder / "trace")
    disk = Disk(run, calls)
    require(disk.state(len(calls), []) == on_disk(run), "the trace does not hold everything the run did")
    require(output.adapter(run) == output.adapter(uninterrupted), "the traced run differs from the uninterrupted one")
    prove_that_it_sees(run, calls)
    replayed, different = 0, {}
    for where, state, promise in cuts(disk, calls, bench.long):
        check_state(state, promise, where)
        replayed += 1
        different.setdefault(frozenset((name, data) for name, data in state.items()), (where, state))
    sure = disk.state(len(calls), disk.pending(len(calls)))
    require(sure.get("adapter_model.safetensors") == output.adapter(run)[0] and "adapter_config.json" in sure,
            "a run that has ended can still lose its adapter")
    chosen = list(different.values())
    chosen = chosen if bench.long else chosen[::max(1, len(chosen) // 100)]
    with Server(bench, run, [bench.bin / "peft-run", path, "--resume"]) as server:
        for where, state in chosen:
            put(run, state)
            end = server.child()
            require(end.code == 0, f"{where}: the next run ends with {end.code}: {end.errors}")
            output.check_result(run, uninterrupted)
            output.check_checkpoint(run / LAST, uninterrupted / LAST)
            output.require_no_litter(run)
    return (f"{replayed} crashes replayed, at each of {len(calls) + 1} cuts of {len(calls)} calls: 0 lost or broken "
            f"checkpoints; {len(chosen)} of {len(different)} different disks resumed to the same end")
