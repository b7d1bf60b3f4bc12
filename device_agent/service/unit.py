"""The unit of the agent for systemd, version 247 (Debian 11) or newer.

Every setting: systemd.unit(5), systemd.service(5), systemd.exec(5), systemd.resource-control(5).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

UNIT_NAME = "genba-agent.service"
UNIT_DIR = Path("/etc/systemd/system")
SERVICE_HOME = Path("/var/lib/genba-agent")
DEFAULT_USER = "genba-agent"
WATCHDOG_SECONDS = 180

_UNIT = """\
# Written by `genba-agent install`, which also replaces it. Changes belong into a drop-in:
# systemctl edit {name}

[Unit]
Description=genba agent: measures models on this device
# It dials out for as long as it takes, so nothing has to wait until a network is there.
After=network.target
# A device nobody visits must never stay down because it failed often.
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={python} -I -m device_agent run --home {home}
# The first start after an update compiles, and a host that is away is waited for once.
TimeoutStartSec=300
# Longer than an old card may keep a write waiting.
WatchdogSec={watchdog_seconds}
Restart=always
RestartSec=5
# 2: the command is wrong; starting it again changes nothing.
RestartPreventExitStatus=2
# The agent ends its worker by itself; SIGTERM to a worker would look like a crash of the model.
KillMode=mixed
TimeoutStopSec=20

# Who it is. A fixed user and not DynamicUser=: the key of this device must outlive every restart
# and stay readable when root enrols the device anew.
User={user}
Group={group}
{groups}UMask=0077
{state}

# The program of the plant goes first: whenever both want a core, it gets most of it. No CPUQuota=
# and no CPUSchedulingPolicy=: both pause a worker in the middle of a measurement. Weights do not:
# on an idle device they change nothing, and a busy device is not measured.
CPUWeight=20
Nice=5
IOWeight=20
IOSchedulingClass=best-effort
IOSchedulingPriority=7
# When memory runs out, workers go first, then the agent, then all others. No MemoryMax=: it does
# nothing on a stock Raspberry Pi OS, whose kernel starts without the memory cgroup. What bounds
# memory everywhere are the limits that each worker sets on itself.
OOMScoreAdjust=500
TasksMax=256
LimitCORE=0
# SD cards wear out.
LogRateLimitIntervalSec=60
LogRateLimitBurst=100

# Files: everything is read-only but the agent's own folder, where nothing can be executed.
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateMounts=yes
ReadOnlyPaths={read_only}
NoExecPaths={home}

# Devices: not PrivateDevices=yes, which hides the firmware of a Raspberry Pi (throttling, clock,
# power). Temperatures and power meters on i2c are read through hwmon in /sys and need no device.
DevicePolicy=closed
DeviceAllow=/dev/vcio rw
DeviceAllow=/dev/vcio_gencmd rw

# Rights: none. No MemoryDenyWriteExecute=: runtimes compile kernels while they run (XNNPACK).
# No ProtectProc= and no ProcSubset=: the agent tells which program keeps a device busy.
CapabilityBoundingSet=
AmbientCapabilities=
NoNewPrivileges=yes
LockPersonality=yes
RestrictSUIDSGID=yes
RestrictRealtime=yes
RemoveIPC=yes
KeyringMode=private
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6

# Each worker, which runs a model that nobody has looked at, locks itself into a cage: namespaces of
# its own without a network and with a read-only view, landlock, seccomp. What that takes is
# allowed here: a unit that forbade it would score better and protect less. The capabilities
# within a namespace of its own count only there.
RestrictNamespaces=user net mnt
SystemCallArchitectures=native
SystemCallFilter=@system-service @mount
SystemCallFilter=seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self
# An error and not a dead process: libraries know how to go without a call.
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""


@dataclass(frozen=True)
class Unit:
    """What differs between one device and the next: the interpreter and its environment's folder,
    the agent's folder, its user and group, and the further groups that open device files to it.
    """

    python: Path
    prefix: Path
    home: Path
    user: str
    group: str
    groups: tuple[str, ...] = ()

    def text(self) -> str:
        """The unit file."""
        return _UNIT.format(
            name=UNIT_NAME,
            python=self.python,
            home=self.home,
            user=self.user,
            group=self.group,
            groups=f"SupplementaryGroups={' '.join(self.groups)}\n" if self.groups else "",
            state=self._state(),
            read_only=self.prefix,
            watchdog_seconds=WATCHDOG_SECONDS,
        )

    def _state(self) -> str:
        """Below /var/lib the folder is the manager's to make and to hand over."""
        if self.home.parent == SERVICE_HOME.parent:
            return f"StateDirectory={self.home.name}\nStateDirectoryMode=0700"
        return f"ReadWritePaths={self.home}"
