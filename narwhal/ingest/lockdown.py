"""Taking rights away from the current process: memory, time, network, programs, other files.

Resource limits hold everywhere. The rest is Linux's Landlock and seccomp, which need no privilege;
a kernel or container that lacks one of them leaves the process with the other guards.
"""

from __future__ import annotations

import ctypes
import math
import os
import platform
import resource
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

# System calls that reading a file never needs, by architecture: network, new processes and
# programs, other processes' memory and signals, namespaces, and kernel interfaces. New threads are
# allowed, which decoders of pictures need: of clone those of this process; clone3 hides what it
# makes in memory, so it is said to be missing, and the C library uses clone instead.
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_FORBIDDEN = {
    "x86_64": (
        41, 42, 43, 44, 45, 46, 47, 49, 50, 53, 288,  # sockets
        57, 58, 59, 322,  # fork and exec
        62, 101, 310, 311, 424, 438,  # other processes
        155, 161, 165, 272, 308, 428,  # namespaces and mounts
        248, 249, 250, 298, 321, 323, 425,  # keys, perf, bpf, userfaultfd, io_uring
    ),
    "aarch64": (
        198, 199, 200, 201, 202, 203, 206, 207, 211, 212, 242,
        221, 281,
        117, 129, 270, 271, 424, 438,
        40, 41, 51, 97, 268, 428,
        217, 218, 219, 241, 280, 282, 425,
    ),
}  # fmt: skip
_CLONE = {"x86_64": 56, "aarch64": 220}
_CLONE3, _CLONE_THREAD = 435, 0x10000
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38
_SECCOMP_MODE_FILTER = 2
_RET_ALLOW, _RET_EPERM, _RET_ENOSYS = 0x7FFF0000, 0x00050001, 0x00050026
_SIGKILL = 9

_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
# Rights to handle, and so to refuse, by the version of Landlock's interface.
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_LIBRARIES = (
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/share/fonts",
    "/usr/share/zoneinfo",
    "/usr/share/tesseract-ocr",
    "/usr/share/tessdata",
)


def limit_resources(seconds: float, memory_bytes: int) -> None:
    """Bound CPU time, memory, files and file sizes of this process from here on.

    Memory is bounded as address space: of `memory_bytes`, what is occupied now is used up, and
    what is reserved without being occupied (libraries' code) does not count.
    """
    cpu = math.ceil(seconds) + 1  # the caller's clock comes first, this is for when it is gone
    _limit(resource.RLIMIT_CPU, cpu)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_NOFILE, 64)
    if sys.platform == "linux":
        reserved, occupied = (
            int(field) * resource.getpagesize()
            for field in Path("/proc/self/statm").read_bytes().split()[:2]
        )
        _limit(resource.RLIMIT_AS, reserved - occupied + memory_bytes)


def lock_down(path: Path) -> None:
    """Leave this process nothing but reading `path` and the interpreter's own files."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return  # without it, neither guard can be set up
    _restrict_files(libc, [path, *_importable()])
    _restrict_calls(libc)


def _limit(which: int, value: int) -> None:
    _, hard = resource.getrlimit(which)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(which, (value, value))


def _importable() -> list[Path]:
    """The folders of the interpreter and of installed packages; of others, this package only.

    A checkout may hold settings with secrets beside the package.
    """
    package = Path(__file__).parents[1]
    folders = [Path(sys.prefix), Path(sys.base_prefix), package]
    folders += [Path(entry) for entry in sys.path if entry.endswith("-packages")]
    return [*folders, *map(Path, _LIBRARIES)]


def _restrict_files(libc: ctypes.CDLL, readable: Iterable[Path]) -> None:
    """Allow reading at and beneath `readable`, and nothing else on any file system (Landlock)."""
    version = libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    if version < 1:
        return
    handled = (1 << _FILE_RIGHTS.get(version, 16)) - 1
    # From version 4 on also TCP, from 6 on signals and abstract sockets of outside processes.
    attributes = struct.pack("=QQQ", handled, 0b11, 0b11)
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = libc.syscall(_LANDLOCK_CREATE, attributes, ctypes.c_size_t(size), ctypes.c_uint32(0))
    if ruleset < 0:
        return
    try:
        for path in readable:
            _allow_reading(libc, ruleset, path)
        libc.syscall(_LANDLOCK_RESTRICT, ruleset, ctypes.c_uint32(0))
    finally:
        os.close(ruleset)


def _allow_reading(libc: ctypes.CDLL, ruleset: int, path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # not every system has every folder
    try:
        rights = _READ_FILE | (_READ_DIR if path.is_dir() else 0)
        rule = struct.pack("=Qi", rights, descriptor)
        libc.syscall(_LANDLOCK_ADD, ruleset, ctypes.c_int(1), rule, ctypes.c_uint32(0))
    finally:
        os.close(descriptor)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _restrict_calls(libc: ctypes.CDLL) -> None:
    """Refuse the forbidden system calls with EPERM (seccomp)."""
    if platform.machine() not in _FORBIDDEN:
        return
    architecture, calls = _ARCHITECTURES[platform.machine()], _FORBIDDEN[platform.machine()]
    load, equal, at_least, any_of, done = 0x20, 0x15, 0x35, 0x45, 0x06
    refuse = len(calls) + 1  # instructions from the range check to the refusal
    code = [
        (load, 0, 0, 4),
        (equal, 1, 0, architecture),
        (done, 0, 0, _RET_EPERM),
        (load, 0, 0, 0),
        (equal, 0, 1, _CLONE3),
        (done, 0, 0, _RET_ENOSYS),
        (equal, 0, 4, _CLONE[platform.machine()]),
        (load, 0, 0, 16),  # its flags
        (any_of, 0, 1, _CLONE_THREAD),
        (done, 0, 0, _RET_ALLOW),
        (done, 0, 0, _RET_EPERM),
        (at_least, refuse, 0, 0x40000000),  # the same calls under x32's numbers
        *((equal, refuse - 1 - index, 0, call) for index, call in enumerate(calls)),
        (done, 0, 0, _RET_ALLOW),
        (done, 0, 0, _RET_EPERM),
    ]
    packed = b"".join(struct.pack("=HBBI", *instruction) for instruction in code)
    program = _Program(len(code), packed)
    libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0)
