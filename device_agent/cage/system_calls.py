"""Which system calls a worker may not make, by the kernel's numbers for each architecture.

Sources: linux arch/x86/entry/syscalls/syscall_{64,32}.tbl, scripts/syscall.tbl (aarch64) and
arch/arm/tools/syscall.tbl.
"""

from __future__ import annotations

from collections.abc import Mapping

ABIS = ("x86_64", "i386", "aarch64", "arm")

# In the order of ABIS; None where an architecture has not got the call.
_NUMBERS: Mapping[str, tuple[int | None, int | None, int | None, int | None]] = {
    # Another process, or another program in this one.
    "fork": (57, 2, None, 2),
    "vfork": (58, 190, None, 190),
    "execve": (59, 11, 221, 11),
    "execveat": (322, 358, 281, 387),
    # The network, and every other process that listens.
    "socket": (41, 359, 198, 281),
    "socketpair": (53, 360, 199, 288),
    "socketcall": (None, 102, None, None),
    # Other processes: their memory, their files, their state.
    "ptrace": (101, 26, 117, 26),
    "process_vm_readv": (310, 347, 270, 376),
    "process_vm_writev": (311, 348, 271, 377),
    "kcmp": (312, 349, 272, 378),
    "perf_event_open": (298, 336, 241, 364),
    "tkill": (200, 238, 130, 238),
    "move_pages": (279, 317, 239, 344),
    "migrate_pages": (256, 294, 238, 400),
    # Out of the group that the agent kills.
    "setsid": (112, 66, 157, 66),
    "setpgid": (109, 57, 154, 57),
    # Wide doors of the kernel that no model needs.
    "bpf": (321, 357, 280, 386),
    "userfaultfd": (323, 374, 282, 388),
    "add_key": (248, 286, 217, 309),
    "request_key": (249, 287, 218, 310),
    "keyctl": (250, 288, 219, 311),
    "name_to_handle_at": (303, 341, 264, 370),
    "open_by_handle_at": (304, 342, 265, 371),
    "fanotify_init": (300, 338, 262, 367),
    "personality": (135, 136, 92, 136),
    "modify_ldt": (154, 123, None, None),
    "iopl": (172, 110, None, None),
    "ioperm": (173, 101, None, None),
    # Another view of the files.
    "mount": (165, 21, 40, 21),
    "umount2": (166, 52, 39, 52),
    "pivot_root": (155, 217, 41, 218),
    "chroot": (161, 61, 51, 61),
    "unshare": (272, 310, 97, 337),
    "setns": (308, 346, 268, 375),
    # The machine itself.
    "quotactl": (179, 131, 60, 131),
    "swapon": (167, 87, 224, 87),
    "swapoff": (168, 115, 225, 115),
    "acct": (163, 51, 89, 51),
    "init_module": (175, 128, 105, 128),
    "finit_module": (313, 350, 273, 379),
    "delete_module": (176, 129, 106, 129),
    "kexec_load": (246, 283, 104, 347),
    "kexec_file_load": (320, None, 294, 401),
    "reboot": (169, 88, 142, 88),
    "syslog": (103, 103, 116, 103),
    "settimeofday": (164, 79, 170, 79),
    "stime": (None, 25, None, None),
    "clock_settime": (227, 264, 112, 262),
    "clock_settime64": (None, 404, None, 404),
    "adjtimex": (159, 124, 171, 124),
    "clock_adjtime": (305, 343, 266, 372),
    "clock_adjtime64": (None, 405, None, 405),
    "sethostname": (170, 74, 161, 74),
    # Memory that no limit of a process counts.
    "memfd_create": (319, 356, 279, 385),
    "ipc": (None, 117, None, None),
    "shmget": (29, 395, 194, 307),
    "shmat": (30, 397, 196, 305),
    "msgget": (68, 399, 186, 303),
    "semget": (64, 393, 190, 299),
    "mq_open": (240, 277, 180, 274),
    # What Landlock does not see in a file.
    "truncate": (76, 92, 45, 92),
    "truncate64": (None, 193, None, 193),
    "chmod": (90, 15, None, 15),
    "fchmod": (91, 94, 52, 94),
    "fchmodat": (268, 306, 53, 333),
    "chown": (92, 182, None, 182),
    "chown32": (None, 212, None, 212),
    "lchown": (94, 16, None, 16),
    "lchown32": (None, 198, None, 198),
    "fchown": (93, 95, 55, 95),
    "fchown32": (None, 207, None, 207),
    "fchownat": (260, 298, 54, 325),
    "setxattr": (188, 226, 5, 226),
    "lsetxattr": (189, 227, 6, 227),
    "fsetxattr": (190, 228, 7, 228),
    "removexattr": (197, 235, 14, 235),
    "lremovexattr": (198, 236, 15, 236),
    "fremovexattr": (199, 237, 16, 237),
    "utime": (132, 30, None, None),
    "utimes": (235, 271, None, 269),
    "futimesat": (261, 299, None, 326),
    "utimensat": (280, 320, 88, 348),
    "utimensat_time64": (None, 412, None, 412),
    # Allowed to some arguments only.
    "clone": (56, 120, 220, 120),
    "prctl": (157, 172, 167, 172),
    "fcntl": (72, 55, 25, 55),
    "fcntl64": (None, 221, None, 221),
    "ioctl": (16, 54, 29, 54),
    "open": (2, 5, None, 5),
    "openat": (257, 295, 56, 322),
    "kill": (62, 37, 129, 37),
    "tgkill": (234, 270, 131, 268),
    "rt_sigqueueinfo": (129, 178, 138, 178),
    "rt_tgsigqueueinfo": (297, 335, 240, 363),
    "prlimit64": (302, 340, 261, 369),
    "sched_setaffinity": (203, 241, 122, 241),
    "sched_setscheduler": (144, 156, 119, 156),
    "sched_setparam": (142, 154, 118, 154),
    "sched_setattr": (314, 351, 274, 380),
    "setpriority": (141, 97, 140, 97),
    "ioprio_set": (251, 289, 30, 314),
}
# From here on a call has one number everywhere.
_COMMON_NUMBERS: Mapping[str, int] = {
    "pidfd_send_signal": 424,
    "io_uring_setup": 425,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "pidfd_open": 434,
    "clone3": 435,
    "openat2": 437,
    "pidfd_getfd": 438,
    "process_madvise": 440,
    "mount_setattr": 442,
    "quotactl_fd": 443,
    "memfd_secret": 447,
    "process_mrelease": 448,
    "fchmodat2": 452,
    "setxattrat": 463,
    "removexattrat": 466,
    "open_tree_attr": 467,
    "file_setattr": 469,
}

SELF_ONLY_FIRST = (
    "kill",
    "tgkill",
    "rt_sigqueueinfo",
    "rt_tgsigqueueinfo",
    "prlimit64",
    "sched_setaffinity",
    "sched_setscheduler",
    "sched_setparam",
    "sched_setattr",
)
"""Calls whose first argument names a process: this one, or 0, which means it too."""

SELF_ONLY_SECOND = ("setpriority", "ioprio_set")
"""The same with the second argument."""

ABSENT = ("clone3", "openat2")
"""Calls whose arguments a filter cannot see; as if the kernel were older, libraries then use the
calls before them.
"""

_ARGUED = (
    "clone",
    "prctl",
    "fcntl",
    "fcntl64",
    "ioctl",
    "open",
    "openat",
    *SELF_ONLY_FIRST,
    *SELF_ONLY_SECOND,
)


def number(name: str, abi: str) -> int | None:
    """The number of a call, None where that architecture has not got it."""
    if name in _COMMON_NUMBERS:
        return _COMMON_NUMBERS[name]
    return _NUMBERS[name][ABIS.index(abi)]


def refused() -> tuple[str, ...]:
    """Calls that are refused whatever their arguments are."""
    names = (*_NUMBERS, *_COMMON_NUMBERS)
    return tuple(name for name in names if name not in (*_ARGUED, *ABSENT))
