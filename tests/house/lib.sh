# SPDX-License-Identifier: MIT
#
# For the scripts of this folder. Each one holds a rule of the house: `tests/house/NAME` looks at the tree in which it
# stands, prints a line for each violation and fails if there is one. `tests/house/NAME --self-test` shows that it
# bites: it must pass on an empty tree with what `fine` plants, and fail on one with what each of `plants` plants.
#
# A script defines:  check     prints violations found in the current directory
#                    fine      plants what is allowed (optional)
#                    plants    names of functions, each of which plants one violation; NAME:WORD if the complaint has to
#                              have this word (there may be others besides)
# and ends with:     house "$@"
set -u
export LC_ALL=C
house_name=$(basename "$0")
house_top=$(cd "$(dirname "$0")/../.." && pwd)

# All files of the tree whose name ends in one of the arguments; without arguments all.
files() {
	find . \( -path ./.git -o -path ./build -o -path ./downloads \) -prune -o -type f -print |
		sed 's|^\./||' | sort |
		awk 'BEGIN { for (i = 1; i < ARGC; i++) end[i] = ARGV[i]; n = ARGC; ARGC = 1 }
			{ ok = n == 1
			  for (i = 1; i < n; i++) if (substr($0, length($0) - length(end[i]) + 1) == end[i]) ok = 1
			  if (ok) print }' "$@"
}

# plant FILE: standard input becomes FILE.
plant() {
	mkdir -p "$(dirname "$1")" && cat >"$1"
}

fine() {
	:
}

# in_tree FUNCTION...: run them in a tree of their own, then check; leaves its output in $found.
in_tree() {
	tree=$(mktemp -d) || exit 2
	found=$(cd "$tree" && for f in "$@"; do "$f" || echo "cannot plant"; done && check)
	rm -rf "$tree"
}

word_of() {
	case $1 in
	*:*) echo "${1#*:}" ;;
	*) echo . ;;
	esac
}

self_test() {
	in_tree fine
	if [ -n "$found" ]; then
		printf '%s finds fault with what is allowed:\n%s\n' "$house_name" "$found"
		exit 1
	fi
	for violation in $plants; do
		in_tree fine "${violation%%:*}"
		if ! printf '%s\n' "$found" | grep -q "$(word_of "$violation")"; then
			echo "$house_name does not notice $violation; it says: $found"
			exit 1
		fi
	done
	echo "$house_name notices: $plants"
}

house() {
	if [ "${1:-}" = --self-test ]; then
		self_test
		return
	fi
	cd "$house_top" || exit 2
	found=$(check)
	[ -z "$found" ] && return
	printf '%s\n' "$found"
	echo "$house_name: $(printf '%s\n' "$found" | wc -l) violations; the rule stands at the top of this script"
	exit 1
}
