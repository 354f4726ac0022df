#!/usr/bin/env bash
# Three nodes on this machine, in the foreground, to try by hand: `make run`.
#
# Usage: run.sh BINARY. Ctrl-C stops all three. The client port is memcached's own on three
# loopback addresses; set CLIENT_PORT and PEER_PORT when something else has them.
set -euo pipefail

binary=${1:?usage: run.sh BINARY}
client_port=${CLIENT_PORT:-11211}
peer_port=${PEER_PORT:-11212}
names=(n1 n2 n3)
addresses=(127.0.0.1 127.0.0.2 127.0.0.3)
start_deadline_s=30
stop_deadline_s=15

peers=""
for i in "${!names[@]}"; do
    peers+="${peers:+,}${names[i]}=${addresses[i]}:$peer_port"
done

# The logs pass through files: nothing is shown while the nodes start, so a failure is one line.
logs=$(mktemp -d)
pids=()

stop_all() {
    trap '' INT TERM
    # At once: SIGTERM would wait for the clients that are connected.
    kill -INT "${pids[@]}" 2>/dev/null || true
    local give_up_at=$((SECONDS + stop_deadline_s))
    while [ "$SECONDS" -lt "$give_up_at" ] && kill -0 "${pids[@]}" 2>/dev/null; do
        sleep 0.1
    done
    kill -KILL "${pids[@]}" 2>/dev/null || true
    # The log printers end with their nodes.
    wait
    rm -rf "$logs"
}

# Why a node has ended: its own error line, if it left one. Nothing while all run.
startup_failure() {
    local i
    for i in "${!pids[@]}"; do
        if ! kill -0 "${pids[i]}" 2>/dev/null; then
            if ! grep -m 1 '^error:' "$logs/${names[i]}"; then
                echo "error: ${names[i]} ended while starting, and left this:"
                cat "$logs/${names[i]}"
            fi
            return
        fi
    done
}

accepts() {
    (exec 3<>"/dev/tcp/$1/$client_port") 2>/dev/null
}

# A supervisor accepts before there is a server.
answers() {
    local line=""
    {
        printf 'version\r\n' >&3 && read -r -t 2 line <&3
    } 3<>"/dev/tcp/$1/$client_port" 2>/dev/null || true
    [[ $line == VERSION* ]]
}

all_answer() {
    local address
    for address in "${addresses[@]}"; do
        answers "$address" || return 1
    done
}

trap 'stop_all; exit 0' INT TERM

# Somebody else's server must not pass for ours: when there is one, only the failure is awaited.
is_taken=no
for address in "${addresses[@]}"; do
    if accepts "$address"; then is_taken=yes; fi
done

for i in "${!names[@]}"; do
    "$binary" -l "${addresses[i]}" -p "$client_port" -m 64 --supervise \
        --cluster try --node-name "${names[i]}" \
        --state-dir "$logs/state-${names[i]}" \
        --peer-listen "${addresses[i]}:$peer_port" --peers "$peers" 2>"$logs/${names[i]}" &
    pids+=($!)
    # bash itself would announce a killed node, with its whole command.
    disown
done

until [ "$is_taken" = no ] && all_answer; do
    failure=$(startup_failure)
    if [ -z "$failure" ] && [ "$SECONDS" -ge "$start_deadline_s" ]; then
        failure="error: no group of three within $start_deadline_s s"
    fi
    if [ -n "$failure" ]; then
        stop_all
        echo "$failure" >&2
        exit 1
    fi
    sleep 0.1
done

echo "Three nodes run:"
for i in "${!names[@]}"; do
    echo "    ${names[i]}  ${addresses[i]}:$client_port  (pid ${pids[i]})"
done
cat <<END

For Django (recommended: on each web host, the node on that host):

    SESSION_ENGINE = "django.contrib.sessions.backends.cache"
    CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.memcached.PyMemcacheCache",
            "LOCATION": "${addresses[0]}:$client_port",
            # or all of them, as well as the client copes with a dead one:
            # "LOCATION": ["${addresses[0]}:$client_port", "${addresses[1]}:$client_port", "${addresses[2]}:$client_port"],
        }
    }

Write on one node, read on another:

    printf 'set a 0 60 1\r\nx\r\nquit\r\n' | nc ${addresses[0]} $client_port
    printf 'get a\r\nquit\r\n' | nc ${addresses[1]} $client_port

Restart a server without anybody noticing:

    $binary ctl --state-dir $logs/state-${names[0]} restart

Kill a server (pkill -9 -P ${pids[2]}): its supervisor has another one up at once. End a node
(kill -9 ${pids[2]}) and read again. Ctrl-C stops all three.

END

for i in "${!names[@]}"; do
    {
        tail -n +1 -s 0.2 --pid="${pids[i]}" -f "$logs/${names[i]}" | sed -u "s/^/${names[i]} | /"
        echo "${names[i]} has ended"
    } &
done

# Until Ctrl-C, or until nobody is left.
wait
# Bash can miss a signal that comes while it begins to wait; the nodes do not.
told=0
for name in "${names[@]}"; do
    if grep -q 'stopping the server signal=' "$logs/$name"; then told=$((told + 1)); fi
done
stop_all
if [ "$told" -eq "${#names[@]}" ]; then exit 0; fi
exit 1
