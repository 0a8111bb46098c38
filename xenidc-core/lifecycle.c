/* SPDX-License-Identifier: MIT */
#include "lifecycle.h"

#include "base/assert.h"

#define P(name) XI_PHASE_##name
#define E(name) XI_EVENT_##name

static const uint8_t next[XI_PHASES][XI_EVENTS] = {
	[P(DIALLING)] = { [E(DIALLED)] = P(OFFERED), [E(LOST)] = P(ENDING) },
	[P(OFFERED)] = { [E(ACCEPT)] = P(UP), [E(REFUSE)] = P(ENDING), [E(LOST)] = P(ENDING) },
	[P(WAITING)] = { [E(CONNECT)] = P(ANSWERED), [E(LOST)] = P(ENDING) },
	[P(ANSWERED)] = { [E(READY)] = P(UP), [E(LOST)] = P(ENDING) },
	[P(UP)] = { [E(DISCONNECT)] = P(ENDING),
		    [E(CLOSE)] = P(DRAINING),
		    [E(LEAVE)] = P(FAREWELL),
		    [E(LOST)] = P(ENDING) },
	[P(DRAINING)] = { [E(DISCONNECT)] = P(ENDING), [E(LEAVE)] = P(FAREWELL), [E(LOST)] = P(ENDING) },
	[P(FAREWELL)] = { [E(DISCONNECT)] = P(ENDING), [E(LOST)] = P(ENDING) },
	[P(ENDING)] = { [E(DONE)] = P(OVER) },
};

enum xi_phase xi_lifecycle_next(enum xi_phase phase, enum xi_event event)
{
	XI_ASSERT(phase < XI_PHASES && event < XI_EVENTS);
	return (enum xi_phase)next[phase][event];
}

const char *xi_phase_name(enum xi_phase phase)
{
	static const char *const names[XI_PHASES] = {
		[P(NONE)] = "none",         [P(DIALLING)] = "dialling", [P(OFFERED)] = "offered",
		[P(WAITING)] = "waiting",   [P(ANSWERED)] = "answered", [P(UP)] = "up",
		[P(DRAINING)] = "draining", [P(FAREWELL)] = "farewell", [P(ENDING)] = "ending",
		[P(OVER)] = "over",
	};

	XI_ASSERT(phase < XI_PHASES && names[phase]);
	return names[phase];
}

const char *xi_event_name(enum xi_event event)
{
	static const char *const names[XI_EVENTS] = {
		[E(DIALLED)] = "dialled", [E(CONNECT)] = "CONNECT", [E(ACCEPT)] = "ACCEPT",
		[E(REFUSE)] = "REFUSE",   [E(READY)] = "READY",     [E(DISCONNECT)] = "DISCONNECT",
		[E(CLOSE)] = "close",     [E(LEAVE)] = "leave",     [E(LOST)] = "lost",
		[E(DONE)] = "done",
	};

	XI_ASSERT(event < XI_EVENTS && names[event]);
	return names[event];
}

enum xenidc_state xi_phase_state(enum xi_phase phase)
{
	XI_ASSERT(phase < XI_PHASES);
	switch (phase) {
	case P(DIALLING):
	case P(OFFERED):
	case P(WAITING):
	case P(ANSWERED):
		return XENIDC_CONNECTING;
	case P(UP):
		return XENIDC_CONNECTED;
	case P(DRAINING):
	case P(FAREWELL):
	case P(ENDING):
		return XENIDC_DISCONNECTING;
	default:
		return XENIDC_IDLE;
	}
}
