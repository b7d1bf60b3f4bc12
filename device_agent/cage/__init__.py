"""The cage that a worker builds around itself before it touches a model or a large library.

`confine.confine` builds it, wall by wall, and says how each wall stands on this kernel:

- network: a network namespace of its own, and no system call that makes a socket;
- files: mounts that are read-only in a mount namespace of its own, and Landlock; the one scratch
  folder of a job is left, and the device's key is hidden;
- system-calls: a seccomp filter. A worker stays one process: it starts no other, and reaches no
  other by signals, limits, priorities or memory;
- memory: limits of the kernel on address space, files and locked memory.

A wall that a kernel has not got is missing, and the others still stand.
"""
