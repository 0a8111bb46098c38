#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The tools as a script sees them: exit codes, JSON, what goes to which stream, text from elsewhere made harmless.
#     tests/tools.sh [DIRECTORY]     default: build/bin
set -u
cd "$(dirname "$0")/.." || exit 1
bin=${1:-build/bin}
tmp=$(mktemp -d) || exit 1
pid=
failed=0
trap '[ -z "$pid" ] || kill "$pid" 2>/dev/null; rm -rf "$tmp"' EXIT
trap 'exit 1' INT TERM

# run CODE COMMAND...: its output goes to $tmp/out and $tmp/err; the exit code has to be CODE.
run() {
	local expected=$1 code
	shift
	timeout 30 "$@" >"$tmp/out" 2>"$tmp/err"
	code=$?
	[ $code -eq "$expected" ] && return 0
	echo "tools: $* ended with $code instead of $expected:"
	cat "$tmp/out" "$tmp/err"
	failed=1
	return 1
}

# says STREAM PATTERN...: each pattern is found in $tmp/out or $tmp/err.
says() {
	local stream=$1 pattern
	shift
	for pattern; do
		grep -qE -- "$pattern" "$tmp/$stream" && continue
		echo "tools: '$pattern' is missing on $stream:"
		cat "$tmp/$stream"
		failed=1
	done
}

# One JSON object a line, nothing else. Strings are taken out first, then what is nested is folded from the inside.
is_json() {
	awk '{
		gsub(/"([^"\\]|\\["\\]|\\u[0-9a-f][0-9a-f][0-9a-f][0-9a-f])*"/, "s")
		gsub(/-?[0-9]+(\.[0-9]+)?(e[-+]?[0-9]+)?|true|false|null/, "v")
		do {
			n = gsub(/\{(s: [sv](, s: [sv])*)?\}/, "v")
			n += gsub(/\[([sv](, [sv])*)?\]/, "v")
		} while (n)
		if ($0 != "v") exit bad = 1
	} END { exit bad || !NR }' "$tmp/out" && return 0
	echo "tools: this is not JSON:"
	cat "$tmp/out"
	failed=1
}

# start COMMAND...: a serving tool; $at gets its address.
start() {
	mkfifo "$tmp/said"
	"$@" >"$tmp/said" 2>"$tmp/server" &
	pid=$!
	exec 3<"$tmp/said"
	rm -f "$tmp/said"
	read -r line <&3 || line=
	at=${line##* }
	[ -n "$at" ] && return 0
	echo "tools: $* does not listen:"
	cat "$tmp/server"
	exit 1
}

# It has to end by SIGTERM, in order.
stop() {
	local code
	kill "$pid"
	wait "$pid"
	code=$?
	pid=
	exec 3<&-
	[ $code -eq "$1" ] || { echo "tools: what served ended with $code"; failed=1; }
}

run 0 "$bin/xenidc" --version && says out '^xenidc [0-9]+\.[0-9]+\.[0-9]+$'
run 0 "$bin/xenidc" help && says out ping echo doctor
run 0 "$bin/xenidc" help ping && says out 'Usage: xenidc ping ADDRESS' 'Exit code'
run 0 "$bin/xenidc" help exits && says out '^  3 '
run 2 "$bin/xenidc" && says out 'Usage'
run 2 "$bin/xenidc" no-such-verb && says err 'no-such-verb' 'xenidc help'
run 2 "$bin/xenidc" ping && says err 'address is missing'
run 2 "$bin/xenidc" ping shm:x --count many && says err "'many'"
run 2 "$bin/xenidc" ping shm:x --no-such-option && says err 'no-such-option'
run 2 "$bin/xenidc" ping nothing:here && says err 'nothing'
run 2 "$bin/xenidc" ping 'shm:../../etc' && says err 'shm'
run 2 "$bin/xenidc" ping "$(printf 'shm:\033[2J')"
! grep -q "$(printf '\033')" "$tmp/err" || { echo "tools: an escape sequence reached the terminal"; failed=1; }
run 3 "$bin/xenidc" ping "shm:nobody-$$" && says err 'UNREACHABLE'
run 3 "$bin/xenidc" ping --json "shm:nobody-$$" && says out '"reason": "UNREACHABLE"' && is_json

"$bin/xenidc" doctor >"$tmp/out" 2>"$tmp/err"
code=$?
[ $code -le 1 ] || { echo "tools: doctor ended with $code"; failed=1; }
run $code "$bin/xenidc" doctor --json && says out '"checks": \[' '"area": "shm"' '"area": "tcp"' && is_json
run 2 "$bin/xenidc" doctor twice

for address in "shm:tools-$$" tcp:127.0.0.1:0; do
	start "$bin/xenidc" echo "$address"
	run 0 "$bin/xenidc" ping "$at" --count 3 --interval 0 && says out '3 sent, 3 answered'
	run 0 "$bin/xenidc" ping "$at" --count 3 --interval 0 --size 16K --json && is_json &&
		says out '"echoed": 3' '"connected": true' '"p50": [0-9]' '"out": \[\{"size": 4096'
	run 0 "$bin/xenidc" ping "$at" --count 0 && says out 'connected to'
	run 5 "$bin/xenidc" echo "$at" && says err 'listen'
	stop 0
	# A service that refuses: still a round trip. This one is the benchmark's; it dislikes the request.
	start "$bin/xenidc-bench" serve --address "$address"
	run 0 "$bin/xenidc" ping "$at" --count 2 --interval 0 && says out 'status 2'
	run 0 "$bin/xenidc-bench" lat --peer --address "$at" --size 64K --count 20 --json --probes '' && is_json &&
		says out '"mismatches": 0' '"ops": 20,'
	stop 143
	for how in 'lat' 'lat --size 100' 'lat --size 70001 --refs inout' 'rate --wait adaptive' 'bw --size 100K' \
		'bw --refs in --verify full' 'lat --wait block --watch' 'lat --map --size 64K' \
		'lat --digest --size 64K' 'idle --channels 5 --seconds 0.2'; do
		# Word splitting is meant.
		run 0 "$bin/xenidc-bench" $how --address "$address" --count 200 --json --probes '' && is_json
	done
done
run 0 "$bin/xenidc-bench" lat --count 1000 --probe-ms 10 --json && is_json &&
	says out '"L_ns": [0-9]' '"W_ns": [0-9]' '"S_ns": [0-9]' '"p50_ns": [0-9]' '"cpu_s_per_mop": [0-9]'
run 2 "$bin/xenidc-bench" lat --size 7 && says err "'7'"
run 2 "$bin/xenidc-bench" && says err 'verb'
run 3 "$bin/xenidc-bench" lat --peer --address "shm:nobody-$$" && says err UNREACHABLE

[ $failed -eq 0 ] && echo "tools: exit codes, JSON and messages are as documented"
exit $failed
