/* SPDX-License-Identifier: MIT */
/*
 * The life of a connection as one constant table. What a peer does in a phase that has no cell for it is a protocol
 * error; what we do ourselves there is a bug of ours.
 */
#ifndef XI_CORE_LIFECYCLE_H
#define XI_CORE_LIFECYCLE_H

#include <xenidc/xenidc.h>

enum xi_phase {
	XI_PHASE_NONE = 0, /* as a cell of the table: impossible */
	XI_PHASE_DIALLING, /* dialler: the transport connects */
	XI_PHASE_OFFERED,  /* dialler: CONNECT sent */
	XI_PHASE_WAITING,  /* acceptor: nothing received yet */
	XI_PHASE_ANSWERED, /* acceptor: ACCEPT sent */
	XI_PHASE_UP,       /* frames flow */
	XI_PHASE_DRAINING, /* closed with linger: what was accepted is still delivered */
	XI_PHASE_FAREWELL, /* DISCONNECT sent, the peer's is awaited */
	XI_PHASE_ENDING,   /* everything lent is being taken back; handlers let go */
	XI_PHASE_OVER,     /* nothing is left but the object */
	XI_PHASES
};

enum xi_event {
	XI_EVENT_DIALLED, /* the transport is through */
	XI_EVENT_CONNECT, /* connect messages of the peer's */
	XI_EVENT_ACCEPT,
	XI_EVENT_REFUSE,
	XI_EVENT_READY,
	XI_EVENT_DISCONNECT, /* frame of the peer's */
	XI_EVENT_CLOSE,      /* the client closes, with linger */
	XI_EVENT_LEAVE,      /* we say DISCONNECT: without linger, or when it is over */
	XI_EVENT_LOST,       /* any other end: an error, a death, a time that ran out */
	XI_EVENT_DONE,       /* everything is taken back */
	XI_EVENTS
};

/* Where `event` leads from `phase`; XI_PHASE_NONE: impossible. */
enum xi_phase xi_lifecycle_next(enum xi_phase phase, enum xi_event event);

const char *xi_phase_name(enum xi_phase phase);
const char *xi_event_name(enum xi_event event);

/* What the client sees of a phase. */
enum xenidc_state xi_phase_state(enum xi_phase phase);

#endif
