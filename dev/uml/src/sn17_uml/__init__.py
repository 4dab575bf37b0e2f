"""A command inside a user-mode Linux kernel, which has cgroup v2 whatever the machine's own kernel has.

Debian's package `user-mode-linux` is a Linux kernel as a program. It boots in about two seconds, without
KVM. The guest sees the machine's files read-only, with empty file systems on `/tmp`, `/run` and `/dev/shm`,
and may write to one folder that it shares with the machine. It has one processor, loopback as its network,
and the controllers cpu, io, memory and pids; pressure stall information (PSI) and cpusets are not compiled
in.
"""

from sn17_uml.guest import GuestError, Outcome, require, run_in_guest

__all__ = ["GuestError", "Outcome", "require", "run_in_guest"]
