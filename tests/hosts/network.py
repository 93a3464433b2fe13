"""Five hosts as network namespaces: a cable each to one switch, on which nobody reaches a partner."""

import os
import subprocess

HOSTS = ("mailbox", "coordinator", "partner-a", "partner-b", "partner-c")
PORT = 8443
# A company's firewall: what it asked for may come in, nothing else.
FIREWALL = """
table inet motet {
  chain arriving {
    type filter hook input priority 0; policy drop;
    iifname "lo" accept
    ct state established,related accept
    %s
  }
}
"""


def administer(*command, check=True, given=None):
    return subprocess.run(command, check=check, capture_output=True, text=True, timeout=60, input=given)


class Network:
    """The hosts, the switch and the cables; nothing of it touches the machine's own network."""

    def __init__(self):
        self.tag = f"motet{os.getpid()}"
        self.switch = f"{self.tag}-switch"
        self.made = []

    def namespace(self, host):
        return f"{self.tag}-{host}"

    def address(self, host):
        return f"10.83.0.{10 + HOSTS.index(host)}"

    def inside(self, host):
        return ["ip", "netns", "exec", self.namespace(host)]

    def build(self):
        self._add(self.switch)
        administer("ip", "-n", self.switch, "link", "add", "bridge", "type", "bridge")
        administer("ip", "-n", self.switch, "link", "set", "bridge", "up")
        for number, host in enumerate(HOSTS):
            self._connect(host, port=f"port{number}")
        return self

    def _connect(self, host, *, port):
        here = self.namespace(host)
        self._add(here)
        administer(*self.inside(host), "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", check=False)
        administer(
            *("ip", "link", "add", "eth0", "netns", here, "type", "veth"),
            *("peer", "name", port, "netns", self.switch),
        )
        administer("ip", "-n", self.switch, "link", "set", port, "master", "bridge", "up")
        if host != "mailbox":  # ports that are isolated from one another: all that they reach is the mailbox
            administer("ip", "-n", self.switch, "link", "set", port, "type", "bridge_slave", "isolated", "on")
        administer("ip", "-n", here, "addr", "add", f"{self.address(host)}/24", "dev", "eth0")
        for link in ("eth0", "lo"):
            administer("ip", "-n", here, "link", "set", link, "up")
        opened = f"tcp dport {PORT} accept" if host == "mailbox" else ""
        administer(*self.inside(host), "nft", "-f", "-", given=FIREWALL % opened)

    def _add(self, name):
        administer("ip", "netns", "add", name)
        self.made.append(name)

    def cut(self, host):
        """Pull a host's cable."""
        administer("ip", "-n", self.switch, "link", "set", f"port{HOSTS.index(host)}", "down")

    def mend(self, host):
        administer("ip", "-n", self.switch, "link", "set", f"port{HOSTS.index(host)}", "up")

    def close(self):
        for name in reversed(self.made):
            administer("ip", "netns", "del", name, check=False)
