/* SPDX-License-Identifier: MIT */
/* What happened, in which state of a connection, while which fault was at work. */
#include <stdio.h>
#include <string.h>

#include "model.h"
#include "xenidc-core/engine.h"

static const char *const event_names[EVENTS] = {
	[EV_FRAME] = "frame",
	[EV_SUBMIT] = "submit",
	[EV_SEND] = "send",
	[EV_CANCEL] = "cancel",
	[EV_REPLY] = "reply",
	[EV_GET] = "get buffer",
	[EV_PUT] = "put buffer",
	[EV_CLOSE] = "close",
	[EV_LINGER] = "close, linger",
	[EV_CONNECT] = "connect",
	[EV_FREE] = "free",
	[EV_PROBE] = "misuse",
	[EV_SCRIBBLE] = "write to a loan",
	[EV_ACCEPT] = "accepted",
	[EV_CONNECTED] = "connected",
	[EV_REQUEST] = "request",
	[EV_CANCELLED] = "cancel asked",
	[EV_MESSAGE] = "message",
	[EV_WRITABLE] = "writable",
	[EV_ABANDONED] = "abandoned",
	[EV_STALLED] = "stalled",
	[EV_DISCONNECTING] = "disconnecting",
	[EV_IDLE] = "idle",
	[EV_REPLIED] = "end: replied",
	[EV_NOT_EXECUTED] = "end: not executed",
	[EV_UNKNOWN] = "end: unknown",
	[EV_EXPIRED] = "end: expired",
	[EV_FAULT] = "fault",
};

static const char *const fault_names[FAULTS] = { "none", "stall",      "loss",      "death",    "pause",
						 "jump", "late write", "late wake", "no memory" };

static struct {
	uint64_t counts[XI_PHASES][EVENTS][FAULTS];
	uint64_t run_events;
	enum fault fault;
	uint64_t fault_until;
	uint64_t last[FAULTS]; /* until when it was at work; 0: never */
} h;

void histogram_count(const struct chan *c, enum event event, uint64_t times)
{
	const struct xi_conn *conn = c && c->channel ? c->channel->conn : NULL;
	enum xi_phase phase = conn ? conn->phase : XI_PHASE_NONE;

	h.counts[phase][event][sim_now() <= h.fault_until ? h.fault : FAULT_NONE] += times;
	/* A frame, a call, an end by timer, a fault: what the handlers see are consequences of these. */
	if (event <= EV_SCRIBBLE || event == EV_EXPIRED || event == EV_STALLED || event == EV_FAULT)
		h.run_events += times;
}

void histogram_fault(enum fault fault, uint64_t lasts_ns)
{
	h.fault = fault;
	h.fault_until = sim_now() + lasts_ns + 5 * SIM_MS;
	if (h.last[fault] < h.fault_until)
		h.last[fault] = h.fault_until;
	histogram_count(NULL, EV_FAULT, 1);
}

bool histogram_fault_since(enum fault fault, uint64_t since)
{
	return h.last[fault] && h.last[fault] >= since;
}

void histogram_new_run(void)
{
	h.run_events = 0;
	h.fault = FAULT_NONE;
	h.fault_until = 0;
	memset(h.last, 0, sizeof(h.last));
}

uint64_t histogram_events(void)
{
	return h.run_events;
}

static void print_row(int phase, int event)
{
	uint64_t sum = 0;

	for (int f = 0; f < FAULTS; f++)
		sum += h.counts[phase][event][f];
	if (!sum)
		return;
	printf("%-10s %-18s", phase ? xi_phase_name((enum xi_phase)phase) : "none", event_names[event]);
	for (int f = 0; f < FAULTS; f++)
		printf(" %10llu", (unsigned long long)h.counts[phase][event][f]);
	printf("\n");
}

void histogram_print(void)
{
	unsigned cells = 0;

	printf("%-10s %-18s", "state", "event");
	for (int f = 0; f < FAULTS; f++)
		printf(" %10s", fault_names[f]);
	printf("\n");
	for (int phase = 0; phase < XI_PHASES; phase++)
		for (int event = 0; event < EVENTS; event++) {
			print_row(phase, event);
			for (int f = 0; f < FAULTS; f++)
				cells += h.counts[phase][event][f] > 0;
		}
	printf("%u cells of state x event x fault were reached\n", cells);
}
