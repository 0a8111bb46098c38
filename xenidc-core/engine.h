/* SPDX-License-Identifier: MIT */
/*
 * The engine's objects, shared by the files of xenidc-core and by nobody else.
 *
 *     channel.c    the client's object: options, connect, close, free, retry
 *     listener.c   listeners and their half-open connections
 *     conn.c       one incarnation: memory, lifecycle, upcalls that are no frames
 *     handshake.c  CONNECT, ACCEPT, REFUSE, READY
 *     receive.c    a frame arrives: check, then the file that knows its kind
 *     transmit.c   a frame leaves
 *     submit.c     requests of ours: submit, cancel, deadlines, every way to end
 *     serve.c      requests of the peer's: dispatch in order, view, read, write, reply
 *     message.c    messages and their credit
 *     buffers.c    buffers of ours: slots, free lists, loans
 *     landing.c    where data of the peer's arrive, and when they are complete
 *     ending.c     disconnect, take back, idle
 *     beat.c       heartbeat and silence
 */
#ifndef XI_CORE_ENGINE_H
#define XI_CORE_ENGINE_H

#include <xenidc/transport.h>
#include <xenidc/xenidc.h>

#include "base/assert.h"
#include "base/limits.h"
#include "base/list.h"
#include "base/times.h"
#include "budget.h"
#include "frame.h"
#include "hello.h"
#include "lifecycle.h"
#include "loop.h"

/* --- Buffers of ours */

enum xi_buffer_state {
	XI_BUFFER_FREE = 0,
	XI_BUFFER_TAKEN,  /* the client has it */
	XI_BUFFER_LENT,   /* a request in flight has it */
	XI_BUFFER_ORPHAN, /* lent to a request that has ended here, but not at the peer */
};

struct xi_buffer {
	uint8_t *data;
	uint32_t capacity;
	uint16_t generation;
	uint8_t state; /* enum xi_buffer_state */
	uint8_t cls;
	bool put_later; /* ORPHAN: the client gave it back already */
};

/* All buffers of one direction, with a stack of free ones for each class. */
struct xi_buffers {
	struct xi_buffer *all;
	uint32_t count;
	struct {
		uint32_t size, count;
		uint16_t *free;
		uint32_t free_count;
	} cls[XENIDC_CLASSES_MAX];
};

/* --- Landing: what is expected in an rx slot (or lent from an answer slot) */

struct xi_place {
	uint32_t next, end; /* bytes still to come: [next, end) */
	uint16_t owner;     /* index of the request it belongs to: ours for answers, the peer's for its OUT data */
	bool busy;          /* lent */
	bool pending;       /* data are on their way */
};

/* --- Requests of ours */

enum xi_out_state {
	XI_OUT_FREE = 0,
	XI_OUT_SENT,    /* in flight */
	XI_OUT_REPLIED, /* the reply is here, its data are not complete */
	XI_OUT_ORPHAN,  /* ended for the client; the peer still has to answer */
};

struct xi_out_ref {
	uint32_t offset, length, valid;
	uint16_t buffer;
	bool in;
};

struct xi_out {
	struct xi_list link; /* in flight, oldest first */
	uint8_t state;       /* enum xi_out_state */
	bool cancel_sent;
	uint8_t nrefs;
	uint16_t generation;
	uint16_t pending; /* pieces of data that are not here yet */
	uint32_t sequence;
	uint64_t position; /* of its frame */
	uint64_t submitted_ns;
	uint64_t deadline_ns; /* 0: none */
	bool cancelled;       /* by xenidc_cancel(): the reason is CANCELLED, not TIMEOUT */
	bool retracted;       /* taken back before a byte left: ends as NOT_EXECUTED */
	xenidc_done *done;
	void *user;
	struct xi_out_ref *refs;
	uint8_t *rx; /* buffer with the reply, while data are awaited */
	struct xi_frame reply;
};

/* --- What waits to be dispatched, in order: requests of the peer's and messages */

struct xi_queued {
	struct xi_list link;
	bool message;
};

enum xi_in_state {
	XI_IN_FREE = 0,
	XI_IN_QUEUED,    /* its data are not complete, or something before it is not */
	XI_IN_EXECUTING, /* the handler has seen it */
	XI_IN_ABANDONED, /* the connection has ended; the handler still has it */
};

struct xi_in_ref {
	uint32_t offset, length;
	uint16_t slot; /* OUT: rx slot. IN: tx slot (answer) */
	uint16_t generation;
	bool in, here; /* `here`: its data are in landing memory */
};

struct xi_in {
	struct xi_queued queued;
	uint8_t state; /* enum xi_in_state */
	uint8_t nrefs;
	uint16_t generation;
	uint16_t pending;
	uint32_t sequence;
	uint64_t reply_position; /* of the last reply with this index; 0: none yet */
	struct xi_in_ref *refs;
	uint8_t *rx;
	const uint8_t *payload;
	uint32_t payload_len;
};

struct xi_in_message {
	struct xi_queued queued;
	uint8_t *rx;
	const uint8_t *payload;
	uint32_t payload_len;
};

/* --- A connection: one incarnation of a channel, or a half-open one of a listener's */

struct xi_conn {
	const struct xi_transport *t;
	void *priv;
	xenidc_loop *loop;
	xenidc_channel *channel;      /* NULL while half-open, or when the channel was freed */
	xenidc_listener *listener;    /* while half-open */
	struct xi_accounts *accounts; /* of the listener that it came through */
	struct xi_list half_open;
	bool counted_connecting; /* among the accounts */
	struct xi_pollable poll;
	struct xi_task task;
	struct xenidc_timer timer;     /* the phase's: connect, linger, close */
	struct xenidc_timer beat;      /* heartbeat and silence */
	struct xenidc_timer deadlines; /* of requests */
	uint64_t deadlines_due;
	enum xi_phase phase;
	bool dirty;      /* committed, not flushed */
	bool polled;     /* the loop looks at it */
	bool processing; /* inside process(): its end flushes */
	bool failed;     /* xi_conn_end() was called */
	bool reserved, was_up;
	bool told_disconnecting; /* the client knows that it is no longer usable */
	bool close_done;         /* the transport has closed */
	struct xenidc_error why; /* of the end */
	bool peer_said;          /* peer_last is known */
	uint32_t peer_last;      /* last sequence that the peer's handler saw */
	uint64_t linger_until;
	uint64_t unsent_at_end; /* first position of which no byte had left */

	uint16_t major, minor; /* of the protocol in use */
	struct xenidc_limits limits;
	struct xenidc_times times;
	struct xi_frame_limits frame_limits;
	struct xi_layout tx, rx;
	uint8_t *tx_base, *rx_base;
	uint32_t tx_own, rx_peer; /* slots before the answer slots, of our region and of the peer's */
	uint64_t accounted;       /* bytes charged to the listener */

	void *arena; /* all tables below */
	uint8_t **rx_free;
	uint32_t rx_free_count;
	struct xi_out *out;
	uint16_t *out_free;
	uint32_t out_free_count;
	struct xi_list in_flight;
	struct xi_in *in;
	uint32_t in_busy; /* EXECUTING and ABANDONED */
	struct xi_in_message *messages;
	uint16_t *messages_free;
	uint32_t messages_free_count;
	struct xi_list queue; /* of struct xi_queued */
	struct xi_buffers buffers[2];
	struct xi_place *landing; /* one for each rx slot */
	bool *answers;            /* one for each answer slot of ours: lent */
	uint32_t *valid;          /* for one result */
	struct xi_seg *segs;      /* for one frame */

	uint32_t sequence_out, sequence_in, last_dispatched;
	uint16_t messages_sent, messages_acked;          /* ours */
	uint64_t *message_positions;                     /* of those not consumed yet, a ring of messages_out */
	uint32_t message_next;                           /* place in it of the next one */
	uint16_t messages_consumed, messages_advertised; /* the peer's */
	uint16_t messages_received;
	bool credit_retracted;    /* a frame that told of credit was taken back, and none has followed */
	uint64_t credit_position; /* of the last CREDIT */
	uint32_t frames_sent, frames_received;
	uint32_t pings_sent_at[4]; /* frames_sent when each was sent, until the peer has read it */
	uint64_t ping_positions[4];
	unsigned pings_out;
	bool said_something, heard_something, is_stalled;
	bool want_request, want_message, want_buffer; /* -EAGAIN was given: tell `writable` */
	uint64_t heard_ns;
	uint32_t jumps;
	unsigned orphans;
};

/* --- A channel */

struct xenidc_channel {
	xenidc_loop *loop;
	struct xi_member member;
	struct xenidc_handlers handlers;
	void *user;
	struct xenidc_channel_options options; /* its pointers lead to the copies below */
	char service[XENIDC_SERVICE_MAX + 1];  /* of this connect: the option's, else the address's */
	char service_given[XENIDC_SERVICE_MAX + 1];
	uint8_t auth[XI_AUTH_MAX];
	char address[XENIDC_ADDRESS_MAX];
	const struct xi_transport *last_transport;
	struct xi_conn *conn;
	const void *owner;
	struct xi_task task; /* free, or an idle that was put off */
	struct xenidc_timer retry;
	uint64_t backoff_ns, failing_since;
	uint32_t incarnation;
	bool accepted;      /* made by a listener */
	bool listener_owns; /* freed after idle by us */
	bool free_asked, closing, retry_waits;
	struct xenidc_stats stats;
	struct xi_call *call; /* a blocking call in progress */
	uint64_t random;
};

struct xenidc_listener {
	xenidc_loop *loop;
	struct xi_member member;
	struct xi_task task; /* free */
	const struct xi_transport *t;
	void *priv;
	bool listening;
	struct xenidc_listener_options options;
	char service[XENIDC_SERVICE_MAX + 1];
	uint8_t auth[XI_AUTH_MAX];
	char name[XENIDC_ADDRESS_MAX];
	struct xi_list half_open;
	struct xi_accounts *accounts; /* outlives the listener while its channels do */
};

/* What a listener's connections hold together. */
struct xi_accounts {
	uint32_t users;      /* the listener and its connections */
	uint32_t connecting; /* of them, not through the connect yet */
	uint32_t channels;
	uint64_t bytes;
	const void *owner; /* as xi_conn_owner() has it */
};

/* --- conn.c */
/* A key for what is kept in quarantine, never the same again: it has to outlive whoever it is charged to. */
const void *xi_owner_new(void);
int xi_conn_new(xenidc_loop *loop, const struct xi_transport *t, struct xi_conn **ret);
void xi_conn_free(struct xi_conn *conn);   /* close at the transport first */
void xi_conn_unpoll(struct xi_conn *conn); /* the loop no longer looks at it */
/* Move along the table. False: impossible there; the caller says what that means. */
bool xi_conn_event(struct xi_conn *conn, enum xi_event event);
/* Let the connection end with this reason (the first one counts); carried out by its task. */
void xi_conn_end(struct xi_conn *conn, bool by_peer, enum xenidc_reason reason, int code, const char *text, ...)
	__attribute__((format(printf, 5, 6)));
/* A peer did something impossible: as xi_conn_end() with PROTOCOL, counted and logged. Always false. */
bool xi_conn_protocol(struct xi_conn *conn, const char *text, ...) __attribute__((format(printf, 2, 3)));
/* Reserve for what was negotiated: tables, rx buffers, the transport's share. */
int xi_conn_reserve(struct xi_conn *conn, const struct xenidc_budget *budget, bool map, bool digest,
		    struct xenidc_error *err);
/* All set up: from here on frames flow. */
void xi_conn_up(struct xi_conn *conn);
/* Put the default where nothing was set. */
void xi_times_complete(struct xenidc_times *times);
/* Let its task run soon. */
void xi_conn_wake(struct xi_conn *conn);
/* Is the channel still there to be called back? */
static inline bool xi_conn_audible(const struct xi_conn *conn)
{
	return conn->channel && !conn->channel->free_asked;
}

/* --- handshake.c */
void xi_handshake_start(struct xi_conn *conn); /* from here on its time runs */
void xi_handshake_offer(struct xi_conn *conn); /* send CONNECT */

/* --- transmit.c */
uint64_t xi_transmit(struct xi_conn *conn, uint8_t *frame, uint32_t length, const struct xi_seg *segs, uint32_t nsegs,
		     uint32_t tag);
void xi_transmit_flush(struct xi_conn *conn);
/*
 * Has this frame begun to leave? What a peer can only know by reading it, it cannot answer before: who does, reads
 * nothing, and would let frames pile up here without a bound.
 */
static inline bool xi_has_left(struct xi_conn *conn, uint64_t position)
{
	return position < conn->t->tx_unsent(conn);
}
static inline uint16_t xi_credit(const struct xi_conn *conn)
{
	return conn->messages_consumed;
}

/* --- submit.c */
void xi_out_init(struct xi_conn *conn);
bool xi_out_reply(struct xi_conn *conn, const struct xi_frame *frame);
bool xi_out_landed(struct xi_conn *conn, uint16_t index); /* one pending piece is here */
void xi_out_end_all(struct xi_conn *conn);
void xi_out_check_deadlines(struct xi_conn *conn);
bool xi_out_drained(const struct xi_conn *conn);

/* --- serve.c */
bool xi_in_request(struct xi_conn *conn, const struct xi_frame *frame);
bool xi_in_cancel(struct xi_conn *conn, const struct xi_frame *frame);
bool xi_in_landed(struct xi_conn *conn, uint16_t index);
void xi_in_abandon_all(struct xi_conn *conn);

/* --- message.c */
void xi_message_init(struct xi_conn *conn);
bool xi_message_arrived(struct xi_conn *conn, const struct xi_frame *frame);
void xi_message_dispatch(struct xi_conn *conn, struct xi_in_message *m);
bool xi_message_credit(struct xi_conn *conn, uint16_t credit);
void xi_message_return_credit(struct xi_conn *conn); /* send CREDIT if enough has gathered */

/* --- buffers.c */
void xi_buffers_init(struct xi_conn *conn);
int xi_buffers_check(struct xi_conn *conn, const struct xenidc_ref *ref);
void xi_buffers_release(struct xi_conn *conn, const struct xi_out_ref *ref);
void xi_writable(struct xi_conn *conn);

/* --- landing.c */
/* Data for [offset, offset + length) of rx slot `slot` are announced: they come by themselves, or are fetched. Returns
 * 1 if they are still on their way, 0 if they are here, or negative (ended). */
int xi_landing_expect(struct xi_conn *conn, uint32_t slot, uint16_t owner, uint32_t offset, uint32_t length);
void xi_landing_forget(struct xi_conn *conn, uint32_t slot);

/* --- receive.c */
uint8_t *xi_rx_keep(struct xi_conn *conn); /* take the buffer of the frame being handled out of the pool */
void xi_rx_put(struct xi_conn *conn, uint8_t *buffer);

/* --- ending.c */
void xi_ending_run(struct xi_conn *conn); /* the task of a connection */
/* The channel is freed while connected: say so, wait for nothing. */
void xi_ending_farewell(struct xi_conn *conn);
void xi_ending_close(struct xi_conn *conn, uint64_t linger_ns);
bool xi_ending_peer_disconnect(struct xi_conn *conn, const struct xi_frame *frame);
/* Something that idle, or the end of the linger, waits for may have happened. */
void xi_ending_check(struct xi_conn *conn);

/* Does `a` come after `b`, in sequence numbers that wrap? */
static inline bool xi_sequence_after(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) > 0;
}

/* --- beat.c */
void xi_beat_start(struct xi_conn *conn);
bool xi_beat_ping(struct xi_conn *conn, uint32_t received);

/* --- channel.c */
void xi_channel_idle(xenidc_channel *channel, const struct xenidc_error *why);
int xi_channel_make(xenidc_loop *loop, const struct xenidc_channel_options *options, xenidc_channel **ret,
		    struct xenidc_error *err);

/* --- listener.c */
/* Carry out what the listener has to say to a CONNECT. 0, or the reason for REFUSE with `text`. */
int xi_listener_admit(struct xi_conn *conn, const struct xi_hello *hello, struct xenidc_accept *accept);
void xi_listener_forget(struct xi_conn *conn);    /* no longer half-open */
void xi_accounts_connected(struct xi_conn *conn); /* no longer half-open, as the limit counts */
void xi_accounts_release(struct xi_conn *conn);

/* --- call.c */
void xi_call_over(xenidc_channel *channel);

/* Call a handler of the client's: marks the loop, so that what may not happen inside one is refused. */
#define XI_HANDLER(channel, member, ...)                                                                               \
	do {                                                                                                           \
		if ((channel)->handlers.member) {                                                                      \
			xi_loop_enter_handler((channel)->loop);                                                        \
			(channel)->handlers.member(__VA_ARGS__);                                                       \
			xi_loop_leave_handler((channel)->loop);                                                        \
		}                                                                                                      \
	} while (0)

/* Handles: incarnation, generation, index. */
static inline uint64_t xi_handle(const struct xi_conn *conn, uint16_t generation, uint16_t index)
{
	return (uint64_t)conn->limits.incarnation << 32 | (uint64_t)generation << 16 | index;
}

#endif
