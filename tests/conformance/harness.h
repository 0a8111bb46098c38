/* SPDX-License-Identifier: MIT */
/*
 * The conformance suite: what every transport has to do, written against xenidc.h alone.
 *
 * A case is a function that gets a `struct pair`: a server and a client, each with a loop of its own, in one thread.
 * Nothing exists at first, so that a case can set options; pair_open() gives the usual pair of connected channels.
 * After a case everything is closed and freed, and then checked: every request has ended once, nothing was allocated
 * while connected, no object and no descriptor is left.
 *
 * Cases never sleep. UNTIL() steps both ends until a condition holds; when nothing is ready it waits in poll() as a
 * foreign loop would, without a limit of its own, so that a lost wake-up is a failure; in a simulated world it lets
 * virtual time pass.
 */
#ifndef CONFORMANCE_HARNESS_H
#define CONFORMANCE_HARNESS_H

#include <stdarg.h>
#include <string.h>

#include <xenidc/transport.h>
#include <xenidc/xenidc.h>

#include "tests/lib/check.h"

#define MS ((uint64_t)1000000)
#define SECOND (1000 * MS)

/* What a case needs of a column besides what the contract asks of everyone: capabilities of the transport (XI_CAP_*),
 * and these of the column itself. What is missing makes the case n/a there: harness.c has the words. */
enum {
	NEED_MAP = XI_CAP_MAP,
	NEED_DEATH = XI_CAP_PEER_DEATH,
	NEED_IDENTITY = XI_CAP_IDENTITY,
	NEED_STREAM = XI_CAP_STREAM,
	NEED_DIGEST = XI_CAP_DIGEST,
	NEED_KILL = 1u << 16,   /* the other end can be killed */
	NEED_KERNEL = 1u << 17, /* real descriptors, threads and processes */
	NEED_PATH = 1u << 18,   /* an address is a file */
	NEED_HOST = 1u << 19,   /* an address names a host */
	NEED_CHUNKS = 1u << 20, /* the suite can cut the stream into bytes */
};

struct column {
	const char *name;
	const char *scheme;
	bool simulated;
	bool no_uring; /* XENIDC_NO_URING */
	uint32_t has;  /* NEED_* of the column; the transport's capabilities are added */
};

struct pair;
struct end;
struct pollfd;
struct sim_process;

/* What a case does when a handler runs; NULL: the end remembers it, and holds the request. */
struct hooks {
	void (*connected)(struct end *end);
	void (*request)(struct end *end, xenidc_incoming request);
	void (*cancel)(struct end *end, xenidc_incoming request);
	void (*message)(struct end *end, const void *payload, uint32_t length);
	void (*writable)(struct end *end);
	void (*abandoned)(struct end *end, xenidc_incoming request); /* NULL: it is replied to at once */
	void (*disconnecting)(struct end *end);
	void (*idle)(struct end *end);
};

#define HELD_MAX 256

/* One side: its channel, and what the channel's handlers were told. */
struct end {
	struct pair *pair;
	const char *name;
	xenidc_loop *loop;
	xenidc_channel *channel;
	struct xenidc_channel_options options;
	struct hooks on;
	struct sim_process *process; /* in a simulated world */
	bool frozen;                 /* its loop is not run: a process that does not get the processor */
	bool dropped;                /* was freed under its requests: they need not end */
	unsigned connected, requests, cancels, messages, writable, abandoned, stalled, recovered, disconnecting, idle;
	struct xenidc_limits limits;
	struct xenidc_error why, idle_why;
	xenidc_incoming held[HELD_MAX]; /* requests of the peer's that wait for an answer, in order */
	unsigned held_count;
	unsigned open;     /* requests of ours that have not ended */
	unsigned depth;    /* handlers on the stack */
	unsigned barrier;  /* of the peer, received */
	unsigned ended[4]; /* requests of ours, by enum xenidc_end */
	void *user;        /* the case's */
};

struct pair {
	const struct column *column;
	struct end server, client;
	struct xenidc_listener_options listening;
	xenidc_listener *listener;
	void (*accepted)(struct pair *p, xenidc_channel *channel); /* NULL: it becomes the server's */
	char address[XENIDC_ADDRESS_MAX];
	bool may_allocate; /* see pair_allow() */
	unsigned live;     /* ends that are connected */
	/* When the server is a process of its own. */
	pid_t process;
	bool is_server; /* this is that process */
	bool killed;
	int to_server, to_client;
	void (*told)(struct pair *p, char what);
	char heard[64];
	unsigned heard_count;
	void *user;
};

/* --- Opening and closing. All of them check what they call. */
/* Default options for both, nothing made yet. */
void pair_init(struct pair *p, const struct column *column);
void pair_loops(struct pair *p);
void pair_listen(struct pair *p);
void end_new(struct end *end);     /* its channel */
void end_connect(struct end *end); /* makes the channel if there is none */
/* Listen and connect, until both ends are connected. */
void pair_open(struct pair *p);
/*
 * The same, with the server in a process of its own where there are processes, so that it can be killed. What its
 * handlers do is told by hooks; pair_tell() makes `told` run there, pair_say() is how it answers.
 */
void pair_open_apart(struct pair *p);
void pair_tell(struct pair *p, char what);
void pair_say(struct pair *p, char what);
bool pair_heard(const struct pair *p, char what);
/* The server's process is stopped; is killed, and gone when this returns. */
void pair_stop(struct pair *p);
void pair_kill(struct pair *p);
/* Do not run the end's loop from now on, or do again. */
void end_freeze(struct end *end, bool frozen);
/* The case makes objects while its channels are connected: allocations are not counted from here on. */
void pair_allow(struct pair *p);
/* Close what is open, free everything, check what was left. The runner calls it after each case. */
void pair_end(struct pair *p);
/* Both channels closed in order and idle; they and the listener stay. */
void pair_close(struct pair *p);

/* One more end, or the same anew, on the loop of `like` (may be NULL), with options and hooks of its own. */
void end_init(struct end *end, struct pair *p, const char *name, const struct end *like);
/* Free the channel, whatever its state. */
void end_free(struct end *end);

/* --- Time */
struct wait {
	struct pair *pair;
	uint64_t until;
};
struct wait wait_begin(struct pair *p);
/* One more step; fails with place and condition when it took too long. */
void wait_step(struct wait *w, const char *file, int line, const char *condition);
#define UNTIL(p, condition)                                                                                            \
	do {                                                                                                           \
		struct wait wait_ = wait_begin(p);                                                                     \
		while (!(condition))                                                                                   \
			wait_step(&wait_, __FILE__, __LINE__, #condition);                                             \
	} while (0)
/* Run what is ready, without waiting. False: nothing was. */
bool pair_step(struct pair *p);
/* Run both ends for that long. */
void pair_pass(struct pair *p, uint64_t ns);
/* Let time pass while neither end runs: a machine that sleeps. */
void pair_suspend(struct pair *p, uint64_t ns);
/* Both ends have received whatever the other had sent before, and what came of that. */
void pair_settle(struct pair *p);
#define BARRIER "\xff\xff:barrier"
uint64_t pair_now(struct pair *p);
/* A time for a test on this column: a few times longer on real machines that are slow. */
uint64_t pair_time(const struct pair *p, uint64_t ns);

/* --- Requests of ours */
#define CALL_PAYLOAD 16384
#define CALL_REFS 64

struct call {
	struct xenidc_request request; /* filled in by the case but for done and user */
	struct end *end;
	xenidc_request_id id;
	unsigned ends;
	struct xenidc_result result; /* how it ended; the pointers lead to the copies here */
	uint32_t valid[CALL_REFS];
	uint8_t payload[CALL_PAYLOAD];
	void (*then)(struct call *call); /* NULL: nothing more is done */
};
/* Submit; it has to be accepted. */
void call_start(struct end *end, struct call *call);
/* Submit, and tell what xenidc_submit() said. */
int call_try(struct end *end, struct call *call);
/* Start a request with just a payload of `length` bytes. */
void call_simple(struct end *end, struct call *call, const void *payload, uint32_t length);
/* Wait for the end. */
#define CALL_END(call) UNTIL((call)->end->pair, (call)->ends)
/* The end has to be this. */
#define CHECK_END(call, wanted) CHECK_STR(end_name((call)->result.end), end_name(wanted))
#define CHECK_REASON(got, wanted) CHECK_STR(xenidc_reason_name(got), xenidc_reason_name(wanted))
const char *end_name(enum xenidc_end end);

/* --- Buffers and references */
/* Take a buffer, and refer to its first `length` bytes. */
struct xenidc_ref ref_new(struct end *end, enum xenidc_direction direction, uint32_t length);
void ref_put(struct end *end, const struct xenidc_ref *ref);
void ref_put_all(struct end *end, const struct xenidc_ref *refs, unsigned count);
static inline uint8_t *ref_bytes(const struct xenidc_ref *ref)
{
	return (uint8_t *)ref->buffer.data + ref->offset;
}

/* Bytes that depend on place and seed. */
void fill(void *to, uint32_t length, uint32_t seed);
#define CHECK_FILLED(at, length, seed) check_filled(__FILE__, __LINE__, #at, at, length, seed)
void check_filled(const char *file, int line, const char *what, const void *at, uint32_t length, uint32_t seed);

/* --- Serving */
/* Hooks: answer with the payload, and its length as status. */
void serve_echo(struct end *end, xenidc_incoming request);
/* Answer with a status and nothing else. */
void answer(struct end *end, xenidc_incoming request, int32_t status);
/* Answer everything that is held. */
void answer_held(struct end *end, int32_t status);
/* A view that has to exist. */
void *view(struct end *end, xenidc_incoming request, uint32_t index, uint32_t *ret_length);
struct xenidc_stats stats_of(const struct end *end);

/* --- The machine below: columns.c, alloc.c */
extern const struct column columns[];
const struct column *column_find(const char *name);
uint32_t column_has(const struct column *column);
/* The first of NEED_* that is missing, in words; NULL: the case can run. */
const char *column_lacks(const struct column *column, uint32_t needs);
/* Set up what the column needs, before anything of the library is used in this process. */
void column_enter(const struct column *column);
void column_leave(const struct column *column);
/* A loop for this end. */
void column_loop(const struct column *column, struct end *end);
/* An address where nobody listens yet; `text` has XENIDC_ADDRESS_MAX bytes. */
void column_address(const struct column *column, char *text);
/* Connect messages to addresses of this scheme (in place of the column's) pass through `alter`. */
extern const char *const altered_scheme;
void column_alter(void (*alter)(uint8_t *bytes, uint32_t length));

/* Something stands between the ends from now on, and cuts the stream into single bytes if `one_byte` (relay.c). */
void relay_begin(struct pair *p, bool one_byte);
/* The next connection is broken off after that many bytes, in a simulated world after so many steps. */
void relay_cut(struct pair *p, uint64_t left);
/* The way to the server ends, the way back does not. */
void relay_shut(struct pair *p);
void relay_end(struct pair *p);
/* For pair_step(). */
bool relay_pump(struct pair *p);
unsigned relay_fds(struct pair *p, struct pollfd *fds);

/* From on to off every allocation is a failure, and says where it was. */
void alloc_forbid(bool on);

/* --- Cases: cases.def has them all */
struct conformance_case {
	const char *name;
	const char *about;
	uint32_t needs;
	void (*run)(struct pair *p);
};
extern const struct conformance_case cases[];
extern const unsigned cases_count;

#define CASE(name, needs, about) void case_##name(struct pair *p);
#include "cases.def"
#undef CASE

#endif
