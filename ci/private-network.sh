#!/bin/sh
# private-network.sh COMMAND...: runs a command in a network namespace of its own, which has a loopback device and
# nothing else: what listens there is reached by nobody, and nothing there reaches anybody.
set -eu

exec unshare --net sh -euc '
ip link set lo up
# Without addresses that are not of the loopback kind, getaddrinfo with AI_ADDRCONFIG refuses every name.
ip addr add 127.0.0.2/8 dev lo
ip -6 addr add fd00::1/128 dev lo nodad 2>/dev/null || :
exec "$@"' sh "$@"
