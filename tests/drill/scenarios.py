"""What happens to the nodes while the users click. Hosts are numbered from 0."""

from dataclasses import dataclass
from typing import Callable

from systems import CableSessiond, Ideal, Memcached, Sessiond

# After the last blow. In this time the client's windows of silence end.
AFTERMATH_S = 5.0
# When a node does not come back: what the client makes of it is counted per this time.
OUTAGE_S = 15.0
SILENCE_S = 6.0
BETWEEN_DEATHS_S = 5.0


@dataclass(frozen=True)
class Scenario:
    """A name for the command line, a title for the table, and which systems can go through it."""

    name: str
    title: str
    act: Callable
    systems: tuple


def none(run):
    run.go_on_for(AFTERMATH_S)


def kill(run):
    run.kill_host(2)
    run.go_on_for(OUTAGE_S)


def kill_and_return(run):
    run.kill_host(2)
    run.go_on_for(AFTERMATH_S)
    with run.planned():
        run.start_host(2)
    run.go_on_for(AFTERMATH_S)


def kill_two(run):
    run.kill_host(2)
    run.go_on_for(BETWEEN_DEATHS_S)
    run.kill_host(1)
    run.go_on_for(OUTAGE_S - BETWEEN_DEATHS_S)


def freeze(run):
    with run.planned():
        run.system.freeze(2)
    run.go_on_for(SILENCE_S)
    run.system.thaw(2)
    run.go_on_for(AFTERMATH_S)


def partition(run):
    with run.planned():
        run.system.cut_off()
    run.go_on_for(SILENCE_S)
    run.system.join_again()
    run.go_on_for(AFTERMATH_S)


def stop_and_start(run):
    with run.planned():
        run.system.restart(2)
    run.go_on_for(AFTERMATH_S)


def rolling_restart(run):
    for host in range(3):
        with run.planned():
            run.system.planned_restart(host)
    run.go_on_for(AFTERMATH_S)


def rolling_upgrade(run):
    for host in range(3):
        with run.planned():
            run.system.upgrade(host)
    run.go_on_for(AFTERMATH_S)


def crash(run):
    for host in range(3):
        with run.strike([host]):
            run.system.crash(host)
        run.system.wait_whole()
    run.go_on_for(AFTERMATH_S)


SCENARIOS = [
    Scenario("none", "nothing happens", none, (Sessiond, Memcached)),
    Scenario("kill", "a node is killed for good", kill, (Sessiond, Memcached, Ideal)),
    Scenario(
        "kill-and-return", "a node is killed and comes back", kill_and_return, (Sessiond, Memcached)
    ),
    Scenario(
        "kill-two", "two are killed, one after the other", kill_two, (Sessiond, Memcached, Ideal)
    ),
    Scenario("freeze", "a node hangs for 6 s (SIGSTOP)", freeze, (Sessiond, Memcached)),
    Scenario("partition", "a node is cut off from its peers for 6 s", partition, (CableSessiond,)),
    Scenario(
        "stop-and-start", "a node is stopped and started", stop_and_start, (Sessiond, Memcached)
    ),
    Scenario("restart", "rolling restart", rolling_restart, (Sessiond, Memcached)),
    Scenario("upgrade", "rolling upgrade", rolling_upgrade, (Sessiond,)),
    Scenario("crash", "each server process dies once", crash, (Sessiond, Memcached)),
]
