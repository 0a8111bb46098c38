#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Runs each example over shm and tcp, its two halves as two processes. A serving half that does not end by itself is
# ended by its pid.
#     tests/examples.sh [DIRECTORY]     default: build/examples
set -u
dir=${1:-build/examples}
tmp=$(mktemp -d) || exit 1
pid=
failed=0
trap '[ -z "$pid" ] || kill "$pid" 2>/dev/null; rm -rf "$tmp"' EXIT
trap 'exit 1' INT TERM

# start COMMAND...: run a serving half; $at gets the address once it listens.
start() {
	mkfifo "$tmp/said"
	"$@" >"$tmp/said" 2>"$tmp/errors" &
	pid=$!
	# Its first line, or the end of the file if it ended.
	read -r _ _ at <"$tmp/said" || at=
	rm -f "$tmp/said"
	[ -n "$at" ] && return 0
	echo "examples: $* did not start:"
	cat "$tmp/errors"
	return 1
}

# ask EXPECTED COMMAND...: run the other half, whose last line has to be EXPECTED.
ask() {
	expected=$1
	shift
	if ! timeout 20 "$@" >"$tmp/out" 2>"$tmp/errors"; then
		echo "examples: $* failed:"
		cat "$tmp/errors"
		return 1
	fi
	[ "$(tail -n 1 "$tmp/out")" = "$expected" ] && return 0
	echo "examples: $* said"
	cat "$tmp/out"
	echo "instead of $expected"
	return 1
}

# finish: what serves ends by itself when its client is gone, or does not.
finish() {
	[ "$1" = itself ] || kill "$pid"
	{ wait "$pid"; } 2>/dev/null
	code=$?
	pid=
	[ "$1" != itself ] || [ $code -eq 0 ] && return 0
	echo "examples: the serving half ended with code $code"
	return 1
}

both() {
	start "$dir/echo" serve "$1" && ask 'good morning' "$dir/echo" ask "$at" 'good morning' && finish itself &&
		start "$dir/block-back" "$1" &&
		ask '16384 sectors written, read back and compared' "$dir/block-front" "$at" && finish killed ||
		failed=1
	if [ -n "$pid" ]; then
		{ kill "$pid" && wait "$pid"; } 2>/dev/null
		pid=
	fi
}

both "shm:example-$$"
both tcp:127.0.0.1:0
[ $failed -eq 0 ] && echo "examples: echo and block work over shm and tcp"
exit $failed
