"""What the loader reads in every program and library of a folder: its run paths lead to absolute folders or to its own, never to
the current folder. With --hardened also: what the loader has resolved becomes read-only, no stack is executable, programs are
position-independent, and libpeft and libpeft_cli have the stack protector.

    elf_test.py [--hardened] FOLDER...
"""

import os
import pathlib
import struct
import sys

PT_LOAD, PT_DYNAMIC, PT_GNU_STACK, PT_GNU_RELRO = 1, 2, 0x6474E551, 0x6474E552
DT_NULL, DT_STRTAB, DT_STRSZ, DT_RPATH, DT_RUNPATH, DT_FLAGS, DT_FLAGS_1 = 0, 5, 10, 15, 29, 30, 0x6FFFFFFB
DF_BIND_NOW, DF_1_NOW, PF_X = 8, 1, 1
ET_EXEC, ET_DYN = 2, 3


class Elf:
    """A 64-bit little-endian program or library; `tags` are the entries of its dynamic section."""

    def __init__(self, data):
        self.data, self.tags, self.segments = data, [], []
        self.type = struct.unpack_from("<H", data, 16)[0]
        offset, size, count = *struct.unpack_from("<Q", data, 32), *struct.unpack_from("<HH", data, 54)
        for at in range(offset, offset + size * count, size):
            kind, flags, begin, address, _, length = struct.unpack_from("<IIQQQQ", data, at)
            self.segments.append((kind, flags, begin, address, length))
        for kind, _, begin, _, length in self.segments:
            if kind == PT_DYNAMIC:
                pairs = struct.iter_unpack("<qQ", data[begin:begin + length])
                self.tags = list(iter(lambda: next(pairs, (DT_NULL, 0)), (DT_NULL, 0)))

    def value(self, tag):
        return next((value for key, value in self.tags if key == tag), None)

    def at_address(self, address):
        """The offset in the file of what is loaded at an address."""
        return next(begin + address - start for kind, _, begin, start, length in self.segments
                    if kind == PT_LOAD and start <= address < start + length)

    def strings(self):
        begin, size = self.value(DT_STRTAB), self.value(DT_STRSZ)
        return b"" if begin is None else self.data[self.at_address(begin):][:size]

    def run_paths(self):
        strings = self.strings()
        return [strings[value:strings.index(b"\0", value)].decode() for tag, value in self.tags if tag in (DT_RPATH, DT_RUNPATH)]


def programs_and_libraries(folder):
    """The ELF files in a folder that can be run or loaded, with their paths; not object files."""
    for path in sorted(pathlib.Path(folder).rglob("*")):
        # CMakeFiles has programs with which CMake examines the compiler.
        if path.is_symlink() or not path.is_file() or path.suffix in (".o", ".gch", ".a") or "CMakeFiles" in path.parts:
            continue
        with open(path, "rb") as file:
            head = file.read(18)
            if head[:6] != b"\x7fELF\x02\x01" or struct.unpack_from("<H", head, 16)[0] not in (ET_EXEC, ET_DYN):
                continue
            yield path, Elf(head + file.read())


def problems_of(elf):
    """What is wrong with a file, in words."""
    found = []
    for run_path in elf.run_paths():
        for entry in run_path.split(":"):
            if not (entry.startswith("/") or entry == "$ORIGIN" or entry.startswith("$ORIGIN/")):
                found.append(f"the run path '{run_path}' has the entry '{entry}', which depends on the current folder")
    return found


def missing_defenses(path, elf):
    """What a file lacks, in words."""
    flags, stack = {kind: flags for kind, flags, *_ in elf.segments}, PT_GNU_STACK
    binds_now = (elf.value(DT_FLAGS) or 0) & DF_BIND_NOW or (elf.value(DT_FLAGS_1) or 0) & DF_1_NOW
    return [what for what, there in {
        "is not linked with -z relro": PT_GNU_RELRO in flags,
        "is not linked with -z now": binds_now,
        "has an executable stack": stack in flags and not flags[stack] & PF_X,
        "is not position-independent": elf.type == ET_DYN,
        "has no stack protector": path.name not in ("libpeft.so", "libpeft_cli.so") or b"__stack_chk_fail" in elf.strings(),
    }.items() if not there]


def is_torch(path):
    """Whether it is of the copy of libtorch that an installation can contain, which others have built."""
    return "peft/torch/lib" in path.as_posix()


def check(folder, hardened=False):
    """Checks all files of a folder; returns their number."""
    files = list(programs_and_libraries(folder))
    wrong = [f"{path}: {problem}" for path, elf in files
             for problem in problems_of(elf) + (missing_defenses(path, elf) if hardened and not is_torch(path) else [])]
    assert not wrong, "\n".join(wrong)
    return len(files)


def check_the_check():
    """The test itself finds what it looks for: in this Python, whose run paths are replaced."""
    elf = Elf(pathlib.Path(os.path.realpath(sys.executable)).read_bytes())
    assert elf.tags
    for run_path, wrong in {"/a:": True, ":/a": True, "/a::/b": True, "lib": True, ".": True, "$ORIGINAL": True,
                            "/a:$ORIGIN/../lib:$ORIGIN": False}.items():
        elf.run_paths = lambda run_path=run_path: [run_path]
        assert bool(problems_of(elf)) == wrong, run_path


if __name__ == "__main__":
    check_the_check()
    hardened, folders = "--hardened" in sys.argv[1:], [word for word in sys.argv[1:] if word != "--hardened"]
    for folder in folders:
        number = check(folder, hardened)
        assert number > 0, f"{folder}: no program or library"
        print(f"{folder}: {number} programs and libraries")
