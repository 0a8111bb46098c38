#!/bin/sh
# SPDX-License-Identifier: MIT
#
# A few measurements, half a minute: each transport, small and large, in each wait mode.
#     tools/bench/quick.sh [PROGRAM]     default: build/bin/xenidc-bench
set -eu
bench=${1:-build/bin/xenidc-bench}
tcp=tcp:127.0.0.1:0

"$bench" lat
"$bench" lat --size 64K
"$bench" lat --size 64K --map --verify none
"$bench" lat --wait block
"$bench" lat --wait adaptive
"$bench" rate
"$bench" bw
"$bench" lat --address $tcp
"$bench" lat --address $tcp --size 64K
"$bench" bw --address $tcp --size 256K
"$bench" bw --address $tcp --size 256K --digest
"$bench" idle --seconds 3 --channels 10
