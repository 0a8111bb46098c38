/* SPDX-License-Identifier: MIT */
/*
 * The general run: clients of both sides that do whatever a client may do, and a shadow of what they know, against
 * which every handler and every result is checked.
 *
 *     shadow.c    what was submitted, seen, answered and ended, independent of the library
 *     actors.c    the clients: what they do with channels, and their handlers
 *     requests.c, serving.c   the same for requests, on both ends
 *     sides.c     processes with their loops and channels
 *     histogram.c what happened in which state under which fault
 *     test_simulator.c   seeds, faults, the order of things
 */
#ifndef TESTS_SIM_MODEL_H
#define TESTS_SIM_MODEL_H

#include "sim.h"
#include "xenidc-core/base/limits.h"

#define ITEMS 16384
#define CHANNELS 4 /* of one side */
#define SIDES 3
#define HELD 64
#define OPEN 128
#define SERIALS 8192
#define REFS 4
#define TAKEN 32
#define NO_ITEM UINT32_MAX

enum personality { MAPPED = 0, STREAM, WINDOW, PERSONALITIES };

/* Wrong: print where and why, and how to see it again; end the run. */
void model_fail(const char *file, int line, const char *format, ...) __attribute__((noreturn, format(printf, 3, 4)));
#define MUST(condition, ...)                                                                                           \
	do {                                                                                                           \
		if (!(condition))                                                                                      \
			model_fail(__FILE__, __LINE__, __VA_ARGS__);                                                   \
	} while (0)

/* --- Histogram */
enum event {
	EV_FRAME = 0,
	EV_SUBMIT,
	EV_SEND,
	EV_CANCEL,
	EV_REPLY,
	EV_GET,
	EV_PUT,
	EV_CLOSE,
	EV_LINGER,
	EV_CONNECT,
	EV_FREE,
	EV_PROBE,
	EV_SCRIBBLE,
	EV_ACCEPT,
	EV_CONNECTED,
	EV_REQUEST,
	EV_CANCELLED,
	EV_MESSAGE,
	EV_WRITABLE,
	EV_ABANDONED,
	EV_STALLED,
	EV_DISCONNECTING,
	EV_IDLE,
	EV_REPLIED,
	EV_NOT_EXECUTED,
	EV_UNKNOWN,
	EV_EXPIRED,
	EV_FAULT,
	EVENTS
};
enum fault {
	FAULT_NONE = 0,
	FAULT_STALL,
	FAULT_LOSS,
	FAULT_DEATH,
	FAULT_PAUSE,
	FAULT_JUMP,
	FAULT_LATE_WRITE,
	FAULT_LATE_WAKE,
	FAULT_MEMORY,
	FAULTS
};
struct chan;
/* Something happened at a channel (NULL: at none). */
void histogram_count(const struct chan *c, enum event event, uint64_t times);
void histogram_fault(enum fault fault, uint64_t lasts_ns);
void histogram_new_run(void);
void histogram_print(void);
uint64_t histogram_events(void); /* of this run */
/* A fault of this kind was at work since then. */
bool histogram_fault_since(enum fault fault, uint64_t since);

/* --- Configuration of one run, drawn from its seed */
struct config {
	enum personality personality;
	uint64_t seed;
	struct sim_options options;
	unsigned clients;
	bool map, digest, retry, adaptive, faults;
	uint32_t lose_one_in, delay_one_in; /* sim_set_races() */
	struct xenidc_times times;
	uint32_t calm;         /* one in so many thoughts of closing or freeing is carried out */
	uint32_t hold_percent; /* requests that are not answered at once */
	uint32_t fault_one_in; /* turns */
	uint32_t timeout_percent;
	uint32_t kinds[FAULTS]; /* weights */
};
extern struct config config;

/* --- Shadow */
struct item_ref {
	bool in;
	uint32_t offset, length, valid;
	struct xenidc_buffer buffer;
};
/* A request or a message. */
struct item {
	bool request, message;
	uint8_t from;            /* side */
	bool orphaned;           /* its sender died, or freed the channel: no end is due */
	uint32_t conn, sequence; /* serial of its sender's connection, place in it */
	uint32_t number;         /* of a message: among messages */
	uint32_t payload_len;
	xenidc_request_id id;
	uint32_t nrefs;
	struct item_ref refs[REFS];
	uint64_t expires; /* not before; 0: never */
	bool cancelled, dirty;
	bool seen, answered, ended, never; /* never: the sender was told that no handler will see it */
	enum xenidc_end end;
	int32_t status;
	uint32_t reply_len;
};

/* A request of the peer's that this side holds. */
struct held {
	xenidc_incoming request;
	uint32_t item;
	bool abandoned;
	uint64_t abandoned_at;
	struct {
		const uint8_t *view; /* OUT */
		uint32_t length;
		uint64_t sum;
	} views[REFS];
};

/* A channel of a side, as its client sees it. */
struct chan {
	struct side *side;
	xenidc_channel *channel; /* NULL: free place */
	bool accepted;
	bool up, connecting; /* told connected; a connect is under way */
	bool leaving;        /* told disconnecting, or closed by us */
	bool was_told;       /* disconnecting */
	bool closed;         /* by us */
	uint64_t connect_by, idle_by, up_since, closed_at, linger_until;
	struct xenidc_error why;
	uint32_t serial, peer_serial; /* of this connection; of the peer's, once something came from it */
	uint32_t sent, last_seen;     /* places in the order */
	uint32_t messages_sent, last_message_seen, messages_seen;
	struct xenidc_budget budget;
	bool map;
	uint32_t in_flight;
	uint32_t open[OPEN], open_count; /* requests that have not ended, messages that were not seen */
	bool want_writable;
	struct held held[HELD];
	unsigned held_count;
	struct xenidc_buffer taken[TAKEN];
	unsigned taken_count;
	uint64_t frames; /* counted so far */
};

struct side {
	unsigned index;
	const char *name;
	bool server, quit, winding_up;
	struct sim_process *process;
	xenidc_loop *loop;
	xenidc_listener *listener;
	struct chan chans[CHANNELS];
	struct xenidc_node node;
	bool node_posted;
	unsigned todo;
	unsigned handlers, calls; /* on the stack */
	bool allocates;           /* something that may allocate is going on */
	uint64_t allocations;
	struct sim_event life; /* continue it, or start it again */
	uint64_t paused_at;
};
extern struct side sides[SIDES];

void shadow_begin(void);
uint32_t shadow_new(struct chan *c, bool request, uint32_t payload_len); /* NO_ITEM: no room */
struct item *shadow_item(uint32_t index);
/* The payload that an item has; checks one. */
void shadow_payload(uint32_t index, uint8_t *to);
/* What a peer received: the item that it is. */
uint32_t shadow_arrived(struct chan *c, bool request, const void *payload, uint32_t length);
void shadow_fill(uint8_t *to, uint32_t length, uint64_t key);
bool shadow_same(const uint8_t *bytes, uint32_t length, uint64_t key);
bool shadow_same_or_zero(const uint8_t *bytes, uint32_t length, uint64_t key);
uint64_t shadow_sum(const uint8_t *bytes, uint32_t length);
/* A connection of this channel begins; its client, or its process, ends it. */
void shadow_connected(struct chan *c);
void shadow_left(struct chan *c);
void shadow_gone(struct chan *c);            /* freed, or its process died */
bool shadow_peer_left(const struct chan *c); /* or it is not known who that is */
/* It is under way from now on (before the call: the peer may see it before the call returns); or was not accepted. */
void shadow_accepted(struct chan *c, uint32_t index);
void shadow_refused(struct chan *c, uint32_t index);
uint64_t shadow_key(uint32_t index, uint32_t what);
void shadow_ended(struct chan *c, const struct xenidc_result *result);
/* Some fault that can end a connection was at work. */
bool shadow_disturbed_since(uint64_t since);
/* A connection has become idle. If we closed it with enough linger, all that was sent on it has arrived. */
void shadow_idle(struct chan *c, const struct xenidc_error *why);
/* Nothing is under way: everything accepted on channels that are up has been seen, and ended if it was answered. */
void shadow_check_quiet(void);
void shadow_check_over(void);

/* --- Actors */
extern const struct xenidc_handlers actor_handlers;
void actor_turn(struct side *s, unsigned actions);
void actor_options(struct side *s, struct xenidc_channel_options *o);
/* Answer and close all that there is. */
void actor_wind_up(struct side *s);
/* Buffers: all that exist can be had, but those in use. */
void actor_count_buffers(struct chan *c);

/* Around each handler. */
void actor_enter(struct chan *c);
void actor_leave(struct chan *c);
/* What a client may do with a connection. */
void actor_submit(struct chan *c);
void actor_send(struct chan *c);
void actor_cancel(struct chan *c);
void actor_scribble(struct chan *c);
void actor_get(struct chan *c);
/* The serving half. */
void actor_request(xenidc_channel *channel, xenidc_incoming request);
void actor_cancel_asked(xenidc_channel *channel, xenidc_incoming request);
void actor_abandoned(xenidc_channel *channel, xenidc_incoming request);
void actor_answer(struct chan *c, unsigned i);

/* --- Sides */
void side_address(char *to, size_t size);
uint64_t side_slack(void);
void side_check_times(struct side *s);
void sides_begin(void);
void side_start(struct side *s);
void side_died(struct side *s); /* its process was killed */
void side_poke(struct side *s, unsigned actions);
struct chan *side_place(struct side *s);
struct chan *chan_of(xenidc_channel *channel);
void chan_reset(struct chan *c);
/* What holds at any time; `s` has just run. */
void side_check(struct side *s);
/* Times do not count while nobody could run. */
void sides_forgive(struct side *s, uint64_t ns);

/* Around a call of the client's: no handler may run inside of it, and nothing may be allocated. */
#define CALL(s, expression)                                                                                            \
	__extension__({                                                                                                \
		(s)->calls++;                                                                                          \
		sim_forbid_allocations((s)->process, true);                                                            \
		__typeof__(expression) result_ = (expression);                                                         \
		sim_forbid_allocations((s)->process, false);                                                           \
		(s)->calls--;                                                                                          \
		result_;                                                                                               \
	})

#endif
