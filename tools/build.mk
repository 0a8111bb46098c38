# SPDX-License-Identifier: MIT
#
# Tools and examples: written against <xenidc/xenidc.h> alone, linked with the library that is installed.
TOOLS_COMMON := $(sort $(wildcard tools/common/*.c))
# $(call tool,OUTPUT,SOURCES)
tool = $(eval $(call program,normal,$1,$2,$(call library,normal)))$(eval PROGRAMS += $1)

$(call tool,$(BUILD)/bin/xenidc,$(sort $(wildcard tools/cli/*.c)) $(TOOLS_COMMON))
$(call tool,$(BUILD)/bin/xenidc-bench,$(sort $(wildcard tools/bench/*.c)) $(TOOLS_COMMON))
$(call tool,$(BUILD)/bin/xenidc-demo,$(sort $(wildcard tools/demo/*.c)) $(TOOLS_COMMON))
$(call tool,$(BUILD)/examples/echo,docs/examples/echo/echo.c)
$(call tool,$(BUILD)/examples/block-back,docs/examples/block/back.c)
$(call tool,$(BUILD)/examples/block-front,docs/examples/block/front.c)

.PHONY: demo bench bench-peers
## make demo             two processes: requests and 1 GiB of checked data over shm, then over tcp
demo:
	@tests/setup demo
	@+$(MAKE) --no-print-directory $(BUILD)/bin/xenidc-demo
	@$(BUILD)/bin/xenidc-demo

## make bench            a few measurements, each beside the limits of this machine
bench: $(BUILD)/bin/xenidc-bench
	tools/bench/quick.sh $(BUILD)/bin/xenidc-bench

## make bench-peers      side by side with UCX, libfabric and iperf3, against the goals
bench-peers: $(BUILD)/bin/xenidc-bench
	tools/bench/peers.sh $(BUILD)/bin/xenidc-bench
