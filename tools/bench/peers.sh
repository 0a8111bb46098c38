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

calc() { awk "BEGIN { printf \"%.6g\", ($1) }"; }

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
		value=$(timeout 30 taskset -c "$cpu_a" ucx_perftest 127.0.0.1 -p $port \
			-t "$2" -s "$3" -n "$4" -w 1000 -f -v \
			2>"$tmp/errors" | tail -n 1 | cut -d, -f2)
	served
	[ -n "${value:-}" ] && p=$(calc "$value * 2000")
}

# It prints the mean alone, which any disturbance spoils: the best of three.
libfabric() { # PROVIDER ENDPOINT SIZE COUNT
	local value i
	for i in 1 2 3; do
		port=$((port + 1))
		serve $port fi_pingpong -B $port -p "$1" -e "$2" -I "$4" -S "$3" &&
			timeout 30 taskset -c "$cpu_a" fi_pingpong -P $port -p "$1" -e "$2" -I "$4" -S "$3" 127.0.0.1 \
				2>"$tmp/errors" | awk '$1 ~ /^[0-9]/ { print $7 }'
		served
	done >"$tmp/three"
	value=$(sort -g "$tmp/three" | head -n 1)
	[ -n "${value:-}" ] && p=$(calc "$value * 2000")
}

iperf() { # LENGTH
	local value
	port=$((port + 1))
	serve $port iperf3 -s -1 -p $port &&
		value=$(timeout 30 taskset -c "$cpu_a" iperf3 -c 127.0.0.1 -p $port \
			-t 1 -l "$1" -C reno -f k 2>"$tmp/errors" |
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
	: >"$tmp/expr" && : >"$tmp/v" && : >"$tmp/p" && : >"$tmp/l"
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
		echo "$l0" >>"$tmp/l"
	done
	m_expr=$(median <"$tmp/expr") m_ours=$(median <"$tmp/v") m_other=$(median <"$tmp/p") m_pairs=$good
	m_line=$(median <"$tmp/l")
	[ $good -gt 0 ]
}

show() { # VALUE UNIT
	awk -v v="$1" -v unit="$2" 'BEGIN {
		if (unit == "B/s") printf "%.2f GB/s", v / 1e9
		else if (v < 1000) printf "%.0f ns", v
		else printf "%.2f us", v / 1000 }'
}

# row TEXT UNIT RATIO-NAME RELATION GOAL: print the medians of the last series, and whether the goal is met.
row() {
	local verdict=
	if [ "$5" != - ]; then
		verdict=met
		awk -v a="$m_expr" -v b="$5" -v r="$4" 'BEGIN { exit !(r == "<=" ? a <= b : a >= b) }' ||
			{ verdict=MISSED; missed=1; }
	fi
	printf '%-50s %-10s %4.0f  %-36s %8.3g  %-8s %-6s %s\n' "$1" "$(show "$m_ours" "$2")" "$m_line" "$3" "$m_expr" \
		"$([ "$5" = - ] || echo "$4 $5")" "$verdict" "$([ "$m_pairs" = "$pairs" ] || echo "($m_pairs pairs)")"
}

wanted() { [ -z "$rows_wanted" ] || [[ " $rows_wanted " == *" $1 "* ]]; }

# limit TEXT UNIT NAME FIELD EXPRESSION RELATION GOAL VERB OPTION...: a row against a limit of the machine.
limit() {
	local text=$1 unit=$2 name=$3 field=$4 expression=$5 relation=$6 goal=$7
	shift 7
	series "$field" "$expression" '' "$@" && row "$text" "$unit" "$name" "$relation" "$goal" || missed=1
}

# best TEXT UNIT RELATION GOAL FIELD "OTHER...|OTHER..." VERB OPTION...: against each of the others; the row that counts
# is the worst for us, which is the best of them.
best() {
	local text=$1 unit=$2 relation=$3 goal=$4 field=$5 others=$6 other worst= which=
	shift 6
	local -a list
	IFS='|' read -ra list <<<"$others"
	for other in "${list[@]}"; do
		series "$field" 'v / p' "$other" "$@" || { missed=1; continue; }
		printf '    %-46s %-10s %4.0f  %-36s %8.3g  %15s %s\n' "$other" "$(show "$m_other" "$unit")" \
			"$m_line" 'ours/it' "$m_expr" '' "$([ "$m_pairs" = "$pairs" ] || echo "($m_pairs pairs)")"
		if [ -z "$worst" ] || awk -v a="$m_expr" -v b="$worst" -v r="$relation" \
			'BEGIN { exit !(r == "<=" ? a > b : a < b) }'; then
			worst=$m_expr which=$other worst_ours=$m_ours worst_pairs=$m_pairs worst_line=$m_line
		fi
	done
	[ -n "$worst" ] || return
	m_expr=$worst m_ours=$worst_ours m_pairs=$worst_pairs m_line=$worst_line
	row "$text" "$unit" "best: ${which:0:30}" "$relation" "$goal"
}

# ---------------------------------------------------------------------------------------------------------------------
# Rows

shm_ucx() { # SIZE COUNT
	local tls test list=
	for tls in posix,self sysv,self posix,cma,self sysv,cma,self; do
		for test in tag_lat ucp_am_lat; do
			list="$list${list:+|}ucx $tls $test $1 $2"
		done
	done
	echo "$list"
}

row_shm8() {
	limit 'shm 8 B request+reply, spin' ns 'over 1.5 L + S' p50_ns 'v / (1.5 * L + S)' '<=' 1 lat --probes LS
	best 'shm 8 B request+reply, spin' ns '<=' 1.0 p50_ns "$(shm_ucx 8 100000)" lat --probes L
}
row_shm64k() {
	best 'shm 64 KiB out and back, filled, checked, spin' ns '<=' 0.6 p50_ns \
		"$(shm_ucx 65536 3000)|libfabric shm rdm 65536 1000" lat --size 64K --refs inout --slots 16 --probes L
}
row_map() {
	local size
	for size in 4K 64K 1M; do
		series p50_ns '(v - p) / L' 'again p50_ns lat' \
			lat --size $size --refs out --map --verify none --probes L &&
			row "shm $size MAP, passed untouched, spin" ns 'L beyond the 8 B row' '<=' 0.3 || missed=1
	done
	series p50_ns '(v - p) / L' 'again p50_ns lat' lat --size 64K --refs inout --map --verify none --probes L &&
		row 'shm 64K MAP, one there and one back' ns 'L beyond the 8 B row' '<=' - || missed=1
}
row_block() {
	limit 'shm 8 B, block, only shm in the loop' ns 'over W' p50_ns 'v / W' '<=' 1.3 lat --wait block --probes LW
	limit 'shm 8 B, block, a descriptor besides' ns 'over E' p50_ns 'v / E' '<=' 1.15 \
		lat --wait block --watch --probes LE
}
row_adaptive() {
	series p50_ns 'v / p' 'again p50_ns lat' lat --wait adaptive --probes L &&
		row 'shm 8 B, adaptive, busy' ns 'over spin' '<=' 1.2 || missed=1
	series p50_ns 'v / p' "again p50_ns lat --address $tcp" lat --address $tcp --wait adaptive --probes L &&
		row 'tcp 8 B, adaptive, busy' ns 'over spin' '<=' 1.2 || missed=1
}
row_idle() {
	local address n client serving
	for address in shm:bench-idle-$$ $tcp; do
		for n in 1 100; do
			"$bench" idle --json --address "$address" --channels $n --seconds 12 --probes '' >"$tmp/ours" ||
				{ missed=1; continue; }
			client=$(field sleeps_client_per_s <"$tmp/ours")
			serving=$(field sleeps_server_per_s <"$tmp/ours")
			m_expr=$(calc "$client > $serving ? $client : $serving") m_pairs=$pairs m_line=0
			client=$(field cpu_client_s <"$tmp/ours")
			serving=$(field cpu_server_s <"$tmp/ours")
			m_ours=$(calc "($client + $serving) / 12 * 1e9")
			row "${address%%:*} idle, $n channels (CPU a second, both)" ns 'wake-ups a second' '<=' 2
		done
	done
}
row_tcp8() {
	limit 'tcp 8 B request+reply, spin' ns 'over T' p50_ns 'v / T' '<=' 1.15 lat --address $tcp --probes LT
	best 'tcp 8 B request+reply, spin' ns '<=' 1.05 p50_ns \
		'ucx tcp,self tag_lat 8 10000|ucx tcp,self ucp_am_lat 8 10000' lat --address $tcp --probes L
	limit 'tcp 8 B request+reply, spin, digest' ns 'over T' p50_ns 'v / T' '<=' - \
		lat --address $tcp --digest --probes LT
}
row_tcp64k() {
	best 'tcp 64 KiB out and back, filled, checked, spin' ns '<=' 0.8 p50_ns 'libfabric tcp msg 65536 1000' \
		lat --address $tcp --size 64K --refs inout --slots 16 --probes L
	limit 'tcp 64 KiB out and back, spin' ns 'over T' p50_ns 'v / T' '<=' - \
		lat --address $tcp --size 64K --refs inout --slots 16 --probes LT
	limit 'tcp 64 KiB out and back, spin, digest' ns 'over T' p50_ns 'v / T' '<=' - \
		lat --address $tcp --size 64K --refs inout --slots 16 --digest --probes LT
}
row_bulk() {
	local size goal
	for size in 64K 256K 1M; do
		goal=-
		[ $size != 256K ] || goal=0.8
		limit "tcp bulk $size x 16, spin" B/s 'over B' bytes_per_s_p50 'v / B' '>=' $goal \
			bw --address $tcp --size $size --probes LB
		limit "tcp bulk $size x 16, spin, digest" B/s 'over B' bytes_per_s_p50 'v / B' '>=' - \
			bw --address $tcp --size $size --digest --probes LB
	done
	best 'tcp bulk 256K x 16, block' B/s '>=' 1.0 bytes_per_s 'iperf 128K|iperf 256K|iperf 1M' \
		bw --address $tcp --size 256K --wait block --probes L
	limit 'shm bulk 64 KiB x 16, spin' B/s 'in GB/s' bytes_per_s_p50 'v / 1e9' '>=' - bw --probes L
}

how() {
	local cc cpu load_end
	cpu=$(awk -F': ' '/^model name/ { print $2; exit }' /proc/cpuinfo)
	load_end=$(cut -d' ' -f1 /proc/loadavg)
	cc=$(cat /proc/sys/net/ipv4/tcp_congestion_control)
	cat <<-END

	How it was measured: $(uname -sr), $cpu, $(nproc) CPUs.
	Client on core $cpu_a, serving side on core $cpu_b. Loopback $place; its default congestion
	control is $cc, so UCX and libfabric use that; xenidc, the raw probes and iperf3 use reno.
	$(dpkg-query -W -f '${Package} ${Version}; ' ucx-utils libfabric-bin iperf3)
	UCX: median; libfabric: best mean of three, it prints nothing else. Both print half round trips, doubled here.
	They neither fill nor check their buffers and use one over and over; ours are filled, checked, and 16 in turn.
	$dropped pairs were dropped because L changed by more than 20 % within them. The hypervisor stole $(calc \
		"($(steal) - $steal_begin) / $(getconf CLK_TCK)") s
	of $((SECONDS - begin)) s on $(nproc) CPUs; load average $load_begin at the begin, $load_end at the end.
	END
}
steal() { awk '$1 == "cpu" { print $9 }' /proc/stat; }

dropped=0 begin=$SECONDS steal_begin=$(steal) load_begin=$(cut -d' ' -f1 /proc/loadavg)
printf '%-50s %-10s %4s  %-36s %8s  %-8s\n' 'what' 'ours' 'L/ns' 'compared with' 'ratio' 'goal'
for r in shm8 shm64k map block adaptive idle tcp8 tcp64k bulk; do
	wanted $r && row_$r
done
how
exit $missed
