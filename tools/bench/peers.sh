#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Side by side: xenidc-bench with UCX, libfabric and iperf3 as Debian ships them, against the goals.
#     tools/bench/peers.sh [PROGRAM [ROW...]]     default: build/bin/xenidc-bench, all rows
#
# A row is a series of pairs: ours, then the other, with the line ping-pong L before, between and after. A pair
# counts if all three agree within 20 %, because a virtual machine's cores are moved about and everything follows L.
# What is compared is the ratio within a pair; printed is the median of 5 pairs. All traffic is on loopback; both sides
# are pinned, to the first two cores allowed; the wait mode is the same on both sides of a comparison. As root it all
# runs in a network namespace of its own, whose default congestion control is reno: so it is the same for everyone.
#
# Environment: PAIRS=5, TRIES=30 (pairs begun at most), SECONDS_EACH=0.3 (of one measurement of ours).
# Exit code: 0 all goals of the rows that ran are met, 1 some are not, 2 it could not be measured.
set -u
cd "$(dirname "$0")/../.." || exit 2
bench=${1:-build/bin/xenidc-bench}
[ $# -gt 0 ] && shift
rows_wanted=$*
pairs=${PAIRS:-5} tries=${TRIES:-30} seconds=${SECONDS_EACH:-0.3}
tcp=tcp:127.0.0.1:0
port=17321
missed=0

tests/setup bench || exit 2
[ -x "$bench" ] || { echo "peers: there is no $bench; make it first" >&2; exit 2; }
place="of the machine"
if [ "$(id -u)" = 0 ] && [ -z "${PEERS_NAMESPACE:-}" ] && unshare -n true 2>/dev/null; then
	exec env PEERS_NAMESPACE=1 unshare -n tools/bench/peers.sh "$bench" $rows_wanted
fi
if [ -n "${PEERS_NAMESPACE:-}" ]; then
	place="in a network namespace"
	ip link set lo up && echo reno >/proc/sys/net/ipv4/tcp_congestion_control || exit 2
fi
tmp=$(mktemp -d) || exit 2
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; rm -rf "$tmp"' EXIT
trap 'exit 2' INT TERM
# The first two cores that we may use.
read -r cpu_a cpu_b < <(taskset -cp $$ | sed 's/.*: //' | tr ',' '\n' |
	awk -F- '{ for (i = $1; i <= ($2 == "" ? $1 : $2); i++) print i }' | head -n 2 | tr '\n' ' ')
[ -n "${cpu_b:-}" ] || { echo "peers: two cores are needed, this process may use one" >&2; exit 2; }

# ---------------------------------------------------------------------------------------------------------------------
# Running things

# field NAME: a number of the JSON object on stdin; nothing if it is null.
field() { sed -n 's/.*"'"$1"'": \([0-9.e+-]*\)[,}].*/\1/p'; }

calc() { awk "BEGIN { printf \"%.6g\", $1 }"; }

# ours VERB OPTION...: measure; the object stands in $tmp/ours then.
ours() {
	local verb=$1
	shift
	"$bench" "$verb" --json --cpus "$cpu_a,$cpu_b" --probe-ms 50 "$@" >"$tmp/ours" 2>"$tmp/errors" && return 0
	echo "peers: $bench $verb $* failed:" >&2
	cat "$tmp/errors" >&2
	return 1
}

line() { "$bench" probe --json --probes L --probe-ms 50 --cpus "$cpu_a,$cpu_b" | field L_ns; }

# Wait until somebody listens on a TCP port, 2 s at most.
listening() {
	local hex i
	hex=$(printf ':%04X 0*:0000 0A' "$1")
	for i in $(seq 200); do
		grep -q "$hex" /proc/net/tcp /proc/net/tcp6 2>/dev/null && return 0
		kill -0 "$server" 2>/dev/null || return 1
		sleep 0.01
	done
	return 1
}

# serve PORT COMMAND...: start the serving side of a peer on its core.
serve() {
	local at=$1
	shift
	taskset -c "$cpu_b" "$@" >"$tmp/server" 2>&1 &
	server=$!
	listening "$at" && return 0
	echo "peers: $* does not listen:" >&2
	cat "$tmp/server" >&2
	return 1
}

served() {
	kill "$server" 2>/dev/null
	wait "$server" 2>/dev/null
	server=
}

# The peers. Each puts into $p nanoseconds of a round trip (they print half of it, in microseconds)
# or bytes a second; it fails if there is nothing.
ucx() { # TLS TEST SIZE COUNT
	local value
	port=$((port + 1))
	export UCX_TLS=$1 UCX_NET_DEVICES=lo UCX_LOG_LEVEL=error
	[ "${1#tcp}" != "$1" ] || unset UCX_NET_DEVICES
	serve $port ucx_perftest -p $port &&
		value=$(timeout 30 taskset -c "$cpu_a" ucx_perftest 127.0.0.1 -p $port -t "$2" -s "$3" -n "$4" -w 1000 -f -v \
			2>"$tmp/errors" | tail -n 1 | cut -d, -f2)
	served
	[ -n "${value:-}" ] && p=$(calc "$value * 2000")
}

libfabric() { # PROVIDER ENDPOINT SIZE COUNT
	local value
	port=$((port + 1))
	serve $port fi_pingpong -B $port -p "$1" -e "$2" -I "$4" -S "$3" &&
		value=$(timeout 30 taskset -c "$cpu_a" fi_pingpong -P $port -p "$1" -e "$2" -I "$4" -S "$3" 127.0.0.1 \
			2>"$tmp/errors" | awk '$1 ~ /^[0-9]/ { print $7 }')
	served
	[ -n "${value:-}" ] && p=$(calc "$value * 2000")
}

iperf() { # LENGTH
	local value
	port=$((port + 1))
	serve $port iperf3 -s -1 -p $port &&
		value=$(timeout 30 taskset -c "$cpu_a" iperf3 -c 127.0.0.1 -p $port -t 1 -l "$1" -C reno -f k 2>"$tmp/errors" |
			awk '/receiver/ { for (i = 2; i <= NF; i++) if ($i == "Kbits/sec") print $(i - 1) }')
	served
	[ -n "${value:-}" ] && p=$(calc "$value * 1000 / 8")
}

# Ourselves in another way, as the other side of a pair: a field of the object.
again() { # FIELD VERB OPTION...
	local name=$1 verb=$2
	shift 2
	p=$("$bench" "$verb" --json --cpus "$cpu_a,$cpu_b" --probes '' --seconds "$seconds" "$@" 2>"$tmp/errors" |
		field "$name")
	[ -n "$p" ]
}

# ---------------------------------------------------------------------------------------------------------------------
# Pairs

median() { sort -g | awk '{ v[NR] = $1 } END { if (NR) print (v[int((NR + 1) / 2)] + v[int((NR + 2) / 2)]) / 2 }'; }

# agree A B C: within 20 %?
agree() { awk -v a="$1" -v b="$2" -v c="$3" 'BEGIN {
	max = a > b ? a : b; max = c > max ? c : max
	min = a < b ? a : b; min = c < min ? c : min
	exit !(min > 0 && max <= 1.2 * min) }'; }

# series FIELD EXPRESSION "OTHER..." VERB OPTION...: collect pairs. EXPRESSION is awk over v (ours), p (other), L and
# the probes W E T S B; its medians, and those of v and p, go to $m_expr, $m_ours, $m_other. OTHER empty: no other.
series() {
	local name=$1 expression=$2 other=$3 verb=$4 i v l0 l1 l2 good=0 probe values
	shift 4
	: >"$tmp/expr" && : >"$tmp/v" && : >"$tmp/p"
	for ((i = 0; i < tries && good < pairs; i++)); do
		ours "$verb" --seconds "$seconds" "$@" || return 1
		v=$(field "$name" <"$tmp/ours") l0=$(field L_before_ns <"$tmp/ours") l1=$(field L_after_ns <"$tmp/ours")
		p=1 l2=$l1
		if [ -n "$other" ]; then
			$other || { echo "peers: $other gave nothing: $(cat "$tmp/errors")" >&2; return 1; }
			l2=$(line)
		fi
		agree "$l0" "$l1" "$l2" || { dropped=$((dropped + 1)); continue; }
		good=$((good + 1))
		values="v = $v; p = $p; L = $(calc "($l0 + $l1) / 2")"
		for probe in C1_ns W_ns E_ns T_ns S_ns B_bytes_per_s; do
			values="$values; ${probe%%_*} = $(field $probe <"$tmp/ours" | grep . || echo 0)"
		done
		awk "BEGIN { $values; print $expression }" >>"$tmp/expr"
		echo "$v" >>"$tmp/v"
		echo "$p" >>"$tmp/p"
	done
	m_expr=$(median <"$tmp/expr") m_ours=$(median <"$tmp/v") m_other=$(median <"$tmp/p") m_pairs=$good
	[ $good -gt 0 ]
}

show() {
	local cc
	cc=$(cat /proc/sys/net/ipv4/tcp_congestion_control)
	cat <<-END

	How it was measured: $(uname -sr), $(awk -F': ' '/^model name/ { print $2; exit }' /proc/cpuinfo), $(nproc) CPUs.
	Client on core $cpu_a, serving side on core $cpu_b. Loopback $place; its default congestion
	control is $cc, so UCX and libfabric use that; xenidc, the raw probes and iperf3 use reno.
	$(dpkg-query -W -f '${Package} ${Version}; ' ucx-utils libfabric-bin iperf3)
	UCX: median; libfabric: mean, it prints nothing else. Both print half round trips, doubled here. They neither
	fill nor check their buffers and use one over and over; ours are filled, checked, and 16 in turn.
	$dropped pairs were dropped because L changed by more than 20 % within them. The hypervisor stole $(calc \
		"($(steal) - $steal_begin) / $(getconf CLK_TCK)") s
	of $((SECONDS - begin)) s on $(nproc) CPUs.
	END
}
steal() { awk '$1 == "cpu" { print $9 }' /proc/stat; }

dropped=0 begin=$SECONDS steal_begin=$(steal)
printf '%-46s %-12s %-24s %8s  %-8s\n' 'what' 'ours' 'compared with' 'ratio' 'goal'
for r in shm8 shm64k map block adaptive idle tcp8 tcp64k bulk; do
	wanted $r && row_$r
done
how
exit $missed
