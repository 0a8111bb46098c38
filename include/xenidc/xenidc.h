/* SPDX-License-Identifier: MIT */
/*
 * xenidc.h - split drivers over any transport: the client API.
 *
 * A split driver has two halves that talk over a channel. This header is all that either half needs; which transport
 * carries the channel is decided by an address and shows nowhere else.
 *
 *     loop      owns everything below; one thread runs it
 *     listener  accepts channels at an address
 *     channel   one connection to one peer: requests (with reply), messages (one way), buffers (lent memory)
 *
 * Rules that hold for every function, unless its own comment says otherwise:
 *  - Thread: call from the thread that runs the loop. xenidc_loop_post() is the one exception.
 *  - Blocking: nothing does but xenidc_loop_step(), xenidc_loop_run() and xenidc_call(), and the look-up of a host name
 *    (see xenidc_channel_connect()).
 *  - Memory: nothing allocates between a channel's `connected` and its `idle`.
 *  - Handlers never run inside the call that caused them, and never overlap.
 *  - Errors: 0, or a negative errno. Functions that can fail for a reason worth words take a `struct xenidc_error *`,
 *    which may be NULL. Outputs are not touched on failure.
 *  - Bad arguments that only a bug can produce (NULL handles) are asserted; everything else gets an error code.
 *  - fork: a child of fork() may only free what it inherited (xenidc_loop_free() does it all at once, and says
 *    nothing to the peers). Every other call in the child returns -ECHILD.
 *  - Structures whose first member is `size` grow at the end: set it to sizeof, zero the rest for defaults.
 *
 * All functions: since 0.1.0. The ABI is not stable before 1.0.0.
 */
#ifndef XENIDC_XENIDC_H
#define XENIDC_XENIDC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

#define XENIDC_VERSION_MAJOR 0
#define XENIDC_VERSION_MINOR 1
#define XENIDC_VERSION_PATCH 0

/* "0.1.0", the version of the library that is running. Any thread. */
const char *xenidc_version(void);

/* ------------------------------------------------------------------------------------------------------------------
 * Errors and reasons
 *
 * A reason says why a channel could not be made or did not last. The numbers travel on the wire (docs/PROTOCOL.md) and
 * never change; new ones are added at the end.
 */
#define XENIDC_REASONS(X)                                                                                              \
	X(NONE, 0, "no reason was given")                                                                              \
	X(CLOSED, 1, "closed in order")                                                                                \
	X(PROTOCOL, 2, "the peer broke the protocol")                                                                  \
	X(VERSION, 3, "no protocol version in common")                                                                 \
	X(SERVICE, 4, "no such service here")                                                                          \
	X(DENIED, 5, "refused by the peer's access rules")                                                             \
	X(BUDGET, 6, "the resources asked for cannot be reserved")                                                     \
	X(LIMIT, 7, "a limit was reached")                                                                             \
	X(PEER_DIED, 8, "the peer process ended")                                                                      \
	X(LOST, 9, "the connection was lost")                                                                          \
	X(SILENT, 10, "the peer was silent for too long")                                                              \
	X(TIMEOUT, 11, "no answer in time")                                                                            \
	X(UNREACHABLE, 12, "the peer cannot be reached")                                                               \
	X(ADDRESS, 13, "the address cannot be used")                                                                   \
	X(CANCELLED, 14, "given up by this side")                                                                      \
	X(RESOURCE, 15, "this machine has not enough of something")                                                    \
	X(PERMISSION, 16, "no permission")                                                                             \
	X(UNSUPPORTED, 17, "not supported here")                                                                       \
	X(IDENTITY, 18, "the peer is not who it has to be")

enum xenidc_reason {
#define XENIDC_REASON_ENUM(name, number, text) XENIDC_REASON_##name = (number),
	XENIDC_REASONS(XENIDC_REASON_ENUM)
#undef XENIDC_REASON_ENUM
};

/* "PEER_DIED"; "unknown" for a number this version does not know. Any thread. */
const char *xenidc_reason_name(enum xenidc_reason reason);

/* The line of text that stands beside the reason above. Any thread. */
const char *xenidc_reason_text(enum xenidc_reason reason);

#define XENIDC_ERROR_TEXT_MAX 320

/* What went wrong. `text` is one line for a person: what was tried, what went wrong, what to do next. */
struct xenidc_error {
	int code; /* negative errno, 0 when nothing went wrong */
	enum xenidc_reason reason;
	bool by_peer; /* the peer said so (its text is quoted in `text`, made printable), not this side */
	char text[XENIDC_ERROR_TEXT_MAX];
};

/* ------------------------------------------------------------------------------------------------------------------
 * Loop
 */
typedef struct xenidc_loop xenidc_loop;
typedef struct xenidc_listener xenidc_listener;
typedef struct xenidc_channel xenidc_channel;

/* How a loop waits when nothing is ready. */
enum xenidc_wait {
	XENIDC_WAIT_ADAPTIVE = 0, /* look for about the cost of one wake-up, then sleep; calibrates itself */
	XENIDC_WAIT_BLOCK = 1,    /* sleep at once */
	XENIDC_WAIT_SPIN = 2,     /* never sleep; one core is busy all the time */
};

struct xenidc_loop_options {
	size_t size;
	enum xenidc_wait wait;
	uint64_t spin_max_ns; /* ADAPTIVE: never look longer than this; 0: 50 microseconds */
};

/*
 * Make a loop owned by the calling thread. `options` may be NULL. -ENOMEM, -EMFILE, -EINVAL (unknown wait mode).
 * The caller frees it with xenidc_loop_free().
 */
int xenidc_loop_new(const struct xenidc_loop_options *options, xenidc_loop **ret);

/*
 * Free the loop and everything that still belongs to it, without telling the peers (they notice at once). NULL is
 * allowed. Not inside a handler (asserted). The only call that a fork()ed child may make.
 */
void xenidc_loop_free(xenidc_loop *loop);

/* Change the wait mode; holds from the next step on. */
int xenidc_loop_set_wait(xenidc_loop *loop, enum xenidc_wait wait);

/*
 * Run what is ready; if nothing is, wait for up to `timeout_ns` (negative: for ever, 0: do not wait), then run what
 * became ready. Blocks. Returns the number of events handled (0: time ran out), -EDEADLK inside a handler, -ECHILD.
 */
int xenidc_loop_step(xenidc_loop *loop, int64_t timeout_ns);

/* Run until xenidc_loop_stop(). 0, -EDEADLK inside a handler, -ECHILD. Blocks. */
int xenidc_loop_run(xenidc_loop *loop);

/* Make xenidc_loop_run() return after the present step. From a handler, or through xenidc_loop_post(). */
void xenidc_loop_stop(xenidc_loop *loop);

/*
 * For programs with a loop of their own: poll xenidc_loop_fd() for reading. Before going to sleep on it, call
 * xenidc_loop_arm(); when it wakes, or when arm said BUSY, call xenidc_loop_step(loop, 0).
 *
 *     if (xenidc_loop_arm(loop, &timeout_ns) == XENIDC_ARMED)
 *             poll(..., xenidc_loop_fd(loop) ..., timeout_ns);
 *     xenidc_loop_step(loop, 0);
 *
 * Nothing that happens after ARMED was returned is lost: the descriptor becomes readable. `*timeout_ns` is the time
 * until the next timer, -1 if there is none. The descriptor stays the loop's; do not read or close it. Both say
 * -ECHILD, arm also -EDEADLK inside a handler.
 */
enum xenidc_armed { XENIDC_ARMED = 0, XENIDC_BUSY = 1 };
int xenidc_loop_fd(xenidc_loop *loop);
int xenidc_loop_arm(xenidc_loop *loop, int64_t *timeout_ns);

/* Time on the loop's clock (CLOCK_BOOTTIME, nanoseconds), as of the loop's last look at it. */
uint64_t xenidc_loop_now(xenidc_loop *loop);

/*
 * Run `fn(node)` once on the loop's thread. Any thread; allocates nothing: the caller embeds the node in something of
 * its own, and must not touch it from the call until `fn` runs. This is how submit and reply are made from another
 * thread. Nodes of one thread run in the order in which they were posted. Wakes the loop if it sleeps.
 * The loop has to live until the call returns; nodes that have not run when it is freed never do.
 */
struct xenidc_node {
	struct xenidc_node *next; /* the library's */
	void (*fn)(struct xenidc_node *node);
};
void xenidc_loop_post(xenidc_loop *loop, struct xenidc_node *node, void (*fn)(struct xenidc_node *node));

/* A timer that the caller embeds. Zero it before first use. The library owns it from start until it fires or stops. */
struct xenidc_timer {
	uint64_t due_ns; /* the library's, like the rest */
	size_t place;
	void (*fn)(struct xenidc_timer *timer);
	xenidc_loop *loop;
};
/* Fire `fn` once, in `after_ns`. Restarts a timer that runs. -ENOSPC: more timers than the loop has room for (4096). */
int xenidc_timer_start(xenidc_loop *loop, struct xenidc_timer *timer, uint64_t after_ns,
		       void (*fn)(struct xenidc_timer *timer));
void xenidc_timer_stop(struct xenidc_timer *timer);

/* A watched descriptor that the caller embeds. Level triggered; `events` are those of poll(2). Zero it before use. */
struct xenidc_watch {
	int fd; /* the library's, like the rest */
	uint32_t events;
	void (*fn)(struct xenidc_watch *watch, uint32_t events);
	xenidc_loop *loop;
	struct xenidc_watch *prev, *next;
	bool lazy;
};
/* Watch `fd`; it stays the caller's and must outlive the watch. -EBADF, -EPERM (not pollable), -EEXIST, -ENOMEM. */
int xenidc_watch_start(xenidc_loop *loop, struct xenidc_watch *watch, int fd, uint32_t events,
		       void (*fn)(struct xenidc_watch *watch, uint32_t events));
int xenidc_watch_change(struct xenidc_watch *watch, uint32_t events);
void xenidc_watch_stop(struct xenidc_watch *watch);

/* ------------------------------------------------------------------------------------------------------------------
 * Addresses
 *
 *     shm:NAME                          same host; NAME: 1 to 64 of [A-Za-z0-9._-], not starting with a dot. The
 *                                       socket stands in $XDG_RUNTIME_DIR/xenidc, for root in /run/xenidc
 *     tcp:HOST[:PORT][/SERVICE]         HOST a name, an IPv4 address or [IPv6]; PORT 1 to 65535, default 47615; a
 *                                       listener without HOST (tcp: or tcp::PORT) listens on loopback only, one with
 *                                       `*` as HOST everywhere
 */
#define XENIDC_ADDRESS_MAX 320
#define XENIDC_SERVICE_MAX 64
#define XENIDC_TCP_PORT 47615 /* not assigned by IANA (service names and port numbers registry, 2026) */

/* Check the form of an address, and that its scheme exists. 0, -EINVAL, -ENAMETOOLONG, -EPROTONOSUPPORT. Any thread. */
int xenidc_address_check(const char *address, struct xenidc_error *err);

/* ------------------------------------------------------------------------------------------------------------------
 * Budgets: what a channel reserves before it is connected
 *
 * Each side says what it wants; what holds is the smaller of both, told by `connected`. A budget is both the promise
 * (so much always works) and the bound (a peer can make us hold no more).
 */
#define XENIDC_CLASSES_MAX 4

struct xenidc_slot_class {
	uint32_t size;  /* bytes; rounded up to whole pages */
	uint32_t count; /* slots */
};

struct xenidc_budget {
	size_t size;
	uint32_t requests_out; /* requests of ours in flight; 0: default 32; at most 4096 */
	uint32_t requests_in;  /* requests of the peer in flight; 0: default 32 */
	uint32_t messages_out; /* messages of ours that the peer has not consumed; 0: default 32; at most 4096 */
	uint32_t messages_in;
	uint32_t payload; /* bytes of inline payload of a request, reply or message; 0: default 256; at most 16384 */
	uint32_t refs;    /* references per request; 0: default 4; at most 64 */
	bool no_slots;    /* reserve no buffers: the eight classes below are not defaulted */
	/* Buffers that we lend: OUT (the peer reads) and IN (the peer answers into). All zero: {4096,16},{65536,8}. */
	struct xenidc_slot_class out[XENIDC_CLASSES_MAX];
	struct xenidc_slot_class in[XENIDC_CLASSES_MAX];
	/* What we accept to hold for the peer's OUT and IN buffers. All zero: {4096,16},{65536,8}. */
	struct xenidc_slot_class peer_out[XENIDC_CLASSES_MAX];
	struct xenidc_slot_class peer_in[XENIDC_CLASSES_MAX];
};

/* Fill in the defaults in place. 0, -E2BIG (a limit is exceeded; `err` names it), -EINVAL. Any thread. */
int xenidc_budget_complete(struct xenidc_budget *budget, struct xenidc_error *err);

/*
 * Add what another layer needs on the same channel: counts add up, payload and refs take the larger, classes of equal
 * size add up, others are added as classes of their own. Both completed. -E2BIG when a limit is exceeded. Any thread.
 */
int xenidc_budget_add(struct xenidc_budget *to, const struct xenidc_budget *more, struct xenidc_error *err);

/* Bytes of memory that one side reserves for a channel with this completed budget. Any thread. */
uint64_t xenidc_budget_bytes(const struct xenidc_budget *budget);

/* ------------------------------------------------------------------------------------------------------------------
 * Who the peer is
 */
struct xenidc_peer {
	size_t size;
	char transport[16];
	char address[XENIDC_ADDRESS_MAX];     /* where it comes from, as text */
	char service[XENIDC_SERVICE_MAX + 1]; /* what it asked for; untrusted text, printable */
	bool has_uid;                         /* uid, gid and pid come from the kernel (SO_PEERCRED) */
	uint32_t uid, gid;
	int32_t pid;
	bool has_domid; /* comes from the hypervisor */
	uint32_t domid;
	uint16_t version_major, version_minor; /* of its protocol */
	const void *auth; /* the authentication blob it sent; untrusted; valid during the accept hook only */
	uint32_t auth_len;
};

/* ------------------------------------------------------------------------------------------------------------------
 * Requests, replies, messages
 */

/* A buffer: one slot of a class, for the client to fill (OUT) or for the peer (IN). A value, copy freely. */
enum xenidc_direction { XENIDC_OUT = 0, XENIDC_IN = 1 };
struct xenidc_buffer {
	void *data;        /* OUT: write here before submitting. IN: read here after the reply (const for MAP) */
	uint32_t capacity; /* bytes */
	uint16_t slot, generation;
	uint8_t direction;
	uint32_t incarnation;
};

/* A local buffer reference: part of a buffer, attached to a request and so lent to the peer until the request ends. */
struct xenidc_ref {
	struct xenidc_buffer buffer;
	uint32_t offset, length;
};

/* Names a request of ours; 0 is never one. Stale ids are refused with -ESTALE, never mistaken. */
typedef uint64_t xenidc_request_id;
/* Names a request of the peer's that we serve, its remote buffer references with it. 0 is never one. */
typedef uint64_t xenidc_incoming;

/*
 * How a request ended. Exactly one of these, exactly once, for every request that xenidc_submit() accepted.
 *
 * NOT_EXECUTED is a fact: the peer's handler has not seen the request and never will. UNKNOWN means that the peer may
 * or may not have executed it, wholly or in part. The recipe for UNKNOWN:
 *   1. If the request may be done twice with no harm (a read, a write of the same bytes to the same place): submit it
 *      again once the channel is connected again.
 *   2. Else ask the peer first: give each such request a number of your own in its payload, keep the last number done
 *      on the serving side, and query it after the reconnect.
 *   3. Else report it as an error to whoever asked, as "may have happened"; never as "did not happen".
 */
enum xenidc_end {
	XENIDC_REPLIED = 1,
	XENIDC_NOT_EXECUTED = 2,
	XENIDC_UNKNOWN = 3,
};

/* How a request ended, with the reply. Pointers are valid until the callback returns. */
struct xenidc_result {
	enum xenidc_end end;
	int32_t status;            /* REPLIED: what the peer's handler said; its meaning is the client's own */
	enum xenidc_reason reason; /* otherwise: why (CANCELLED, TIMEOUT, or the reason of the disconnect) */
	const void *payload;       /* COPY and MAP alike: private memory, `payload_len` bytes */
	uint32_t payload_len;
	const uint32_t
		*valid; /* per reference of the request: bytes that the peer filled in (0 for OUT, 0 if not REPLIED) */
	uint32_t refs;
	xenidc_request_id id;
	void *user;
};
typedef void xenidc_done(xenidc_channel *channel, const struct xenidc_result *result);

/* A request to submit. Everything is copied by the call; the buffers of `refs` are lent until `done`. */
struct xenidc_request {
	const void *payload;
	uint32_t payload_len;
	const struct xenidc_ref *refs;
	uint32_t ref_count;
	uint64_t timeout_ns; /* 0: none. When it passes, the request is cancelled and ends at once */
	xenidc_done *done;   /* called exactly once */
	void *user;
};

/*
 * Submit a request; `ret_id` may be NULL. On failure nothing was sent and `done` is not called:
 *   -EAGAIN     no credit: as many requests are in flight as were negotiated. `writable` tells when to go on
 *   -ENOTCONN   not connected (or closing)
 *   -EMSGSIZE   payload longer, or more references, than negotiated
 *   -EINVAL     a reference reaches beyond its buffer, stands twice in the request, or `done` is NULL
 *   -ESTALE     a buffer of an earlier incarnation, or one that was put back
 *   -EBUSY      a buffer that is already lent
 */
int xenidc_submit(xenidc_channel *channel, const struct xenidc_request *request, xenidc_request_id *ret_id);

/*
 * Ask for the end of a request: it ends with whatever reply the peer still gives, and at the latest after `timeout_ns`
 * (0: at once, at the next step), as NOT_EXECUTED where that is known, else UNKNOWN with reason CANCELLED. Buffers of a
 * request that the peer did not answer stay out of use (an orphan) until it does, or until the channel is idle.
 * -ESTALE when it has ended already.
 */
int xenidc_cancel(xenidc_channel *channel, xenidc_request_id id, uint64_t timeout_ns);

/*
 * Submit and wait, running the loop meanwhile; for tools. Copies up to `reply_cap` bytes of payload to `reply` and, if
 * `valid` is not NULL, `request->ref_count` lengths. `request->done` is not used. Fills `*ret` (its pointers are NULL).
 * -EDEADLK inside a handler; otherwise as xenidc_submit(), but waits for credit instead of -EAGAIN. Blocks.
 */
int xenidc_call(xenidc_channel *channel, const struct xenidc_request *request, void *reply, uint32_t reply_cap,
		uint32_t *valid, struct xenidc_result *ret);

/*
 * Send a message: one way, in order with requests. -EAGAIN (no credit; `writable` follows), -ENOTCONN, -EMSGSIZE.
 */
int xenidc_send(xenidc_channel *channel, const void *payload, uint32_t payload_len);

/* Take a buffer of the smallest class that holds `size` bytes. O(1). -EAGAIN (all lent or taken; `writable` follows),
 * -EMSGSIZE (no class is that large), -ENOTCONN. Contents are undefined. Returned by xenidc_buffer_put(); all buffers
 * are void once `idle` has returned. */
int xenidc_buffer_get(xenidc_channel *channel, enum xenidc_direction direction, uint32_t size,
		      struct xenidc_buffer *ret);
/* Give a buffer back. -EBUSY while it is lent, -ESTALE if it is of an earlier incarnation or was given back. */
int xenidc_buffer_put(xenidc_channel *channel, const struct xenidc_buffer *buffer);

/* ------------------------------------------------------------------------------------------------------------------
 * Serving: what a handler does with a request of the peer's
 *
 * All of them: -ESTALE when the request was already replied to, or its channel has ended since.
 */

/* The payload; private memory that does not change, valid until the reply. */
int xenidc_incoming_payload(xenidc_channel *channel, xenidc_incoming request, const void **ret, uint32_t *ret_len);

/* Number of remote buffer references, and what the i-th is. -EINVAL: no such index. */
int xenidc_incoming_refs(xenidc_channel *channel, xenidc_incoming request);
int xenidc_incoming_ref(xenidc_channel *channel, xenidc_incoming request, uint32_t index,
			enum xenidc_direction *ret_direction, uint32_t *ret_length);

/*
 * A pointer to the whole reference, valid until the reply or `abandoned`. OUT: read it; COPY gives memory that no peer
 * can reach, after exactly one copy; MAP gives the peer's own page, read-only, which may change at any moment. IN:
 * write the answer here; never a copy. Contents of an IN view are undefined at first.
 */
int xenidc_view(xenidc_channel *channel, xenidc_incoming request, uint32_t index, void **ret, uint32_t *ret_len);

/* Copy from an OUT reference to memory of ours, in one copy. -EINVAL: out of range, or not OUT. */
int xenidc_read(xenidc_channel *channel, xenidc_incoming request, uint32_t index, uint32_t offset, void *to,
		uint32_t length);
/* Copy from memory of ours into an IN reference. -EINVAL: out of range, or not IN. */
int xenidc_write(xenidc_channel *channel, xenidc_incoming request, uint32_t index, uint32_t offset, const void *from,
		 uint32_t length);

/*
 * Reply; ends every loan of the request. `valid[i]`, one per reference of the request, is the number of bytes from its
 * start that were filled in (ignored for OUT; NULL: all IN references are filled completely); only those travel.
 * Never waits and never fails for want of room. -EMSGSIZE (payload), -EINVAL (`valid` beyond the reference).
 * After `abandoned` it returns 0, sends nothing, and lets the channel become idle.
 */
struct xenidc_reply {
	int32_t status;
	const void *payload;
	uint32_t payload_len;
	const uint32_t *valid;
};
int xenidc_reply(xenidc_channel *channel, xenidc_incoming request, const struct xenidc_reply *reply);

/* ------------------------------------------------------------------------------------------------------------------
 * Channels
 */

/* What was negotiated; the smaller of both budgets. */
struct xenidc_limits {
	size_t size;
	struct xenidc_budget budget;
	bool map;             /* MAP holds in both directions */
	bool digest;          /* payloads are protected by CRC32C */
	uint32_t incarnation; /* goes up with every connect of this channel */
	struct xenidc_peer peer;
};

/*
 * Handlers of a channel; each may be NULL (a NULL `request` refuses every request as NOT_EXECUTED). `user` is what the
 * channel was made with (xenidc_channel_user()).
 */
struct xenidc_handlers {
	/* Usable from here on. */
	void (*connected)(xenidc_channel *channel, const struct xenidc_limits *limits);
	/* A request of the peer's; reply at once or later, exactly once. In the order in which they were submitted. */
	void (*request)(xenidc_channel *channel, xenidc_incoming request);
	/* The peer would like this request to end early; replying soon is polite, nothing more. */
	void (*cancel)(xenidc_channel *channel, xenidc_incoming request);
	/* A message; the memory is valid until the handler returns. */
	void (*message)(xenidc_channel *channel, const void *payload, uint32_t payload_len);
	/* After -EAGAIN: there is credit, or a buffer, again. */
	void (*writable)(xenidc_channel *channel);
	/* The peer is gone or gave up; views of this request are about to become zeros or stale. Let go of it and
	 * call xenidc_reply() once that is done: idle waits for it. */
	void (*abandoned)(xenidc_channel *channel, xenidc_incoming request);
	/* The peer has been silent for long (true), or is back (false). Nothing has ended. */
	void (*stalled)(xenidc_channel *channel, bool stalled);
	/* No longer usable, and why. Ends of all requests follow, then `idle`. */
	void (*disconnecting)(xenidc_channel *channel, const struct xenidc_error *why);
	/* Everything is taken back: no request, loan or buffer is left. With a retry policy a new connect follows by
	 * itself; `why` is also given when a connect failed (without `disconnecting`). May free the channel. */
	void (*idle)(xenidc_channel *channel, const struct xenidc_error *why);
};

/* When to connect again. All zero: never (the client does). */
struct xenidc_retry {
	bool enabled;
	uint64_t backoff_min_ns; /* 0: 100 ms. Doubled after each failure, with +-25 % jitter */
	uint64_t backoff_max_ns; /* 0: 10 s */
	uint64_t give_up_ns;     /* stop when no connect succeeded for this long; 0: never */
	bool fail_fast;          /* stop at the first failure that a retry cannot mend: VERSION, DENIED, SERVICE,
	                          * BUDGET, ADDRESS, UNSUPPORTED */
};

/* Zero means the default that stands behind each (xenidc-core/base/times.h). */
struct xenidc_times {
	uint64_t heartbeat_ns; /* 5 s: something is sent at least this often */
	uint64_t stalled_ns;   /* 10 s of silence: `stalled` */
	uint64_t dead_ns;      /* 20 s of silence: the channel ends as SILENT */
	uint64_t close_ns;     /* 1 s: T_close, the longest that a close waits for the peer */
	uint64_t connect_ns;   /* 10 s: a connect that is not through by then ends as TIMEOUT */
};

struct xenidc_channel_options {
	size_t size;
	struct xenidc_handlers handlers;
	void *user;
	struct xenidc_budget budget; /* its `size` may stay 0 for all defaults */
	struct xenidc_times times;
	struct xenidc_retry retry;
	const char *service; /* what to ask the peer for; NULL: the /SERVICE of the address, or none. Copied */
	const void *auth;    /* given to the peer's accept hook; at most 256 bytes. Copied */
	uint32_t auth_len;
	bool map;    /* MAP, if the peer agrees and the transport can; see xenidc_view() */
	bool digest; /* CRC32C over payloads on byte streams; on if either side asks */
};

/* Make a channel, idle. -ENOMEM, -EINVAL, -E2BIG. */
int xenidc_channel_new(xenidc_loop *loop, const struct xenidc_channel_options *options, xenidc_channel **ret,
		       struct xenidc_error *err);

/*
 * Start to connect. What can be told at once is (bad address, unknown scheme, already connected: -EISCONN, in progress:
 * -EALREADY, still ending: -EBUSY); everything else arrives as `connected`, or as `idle` with the reason.
 * A host *name* (tcp:) is looked up inside this call, and inside a retry, by the system's resolver: if no name server
 * answers that blocks for as long as the resolver is told to wait (resolv.conf(5): `timeout`, `attempts`), and all else
 * on the loop with it. Where that must not be, look the name up elsewhere and give the numeric address.
 */
int xenidc_channel_connect(xenidc_channel *channel, const char *address, struct xenidc_error *err);

/*
 * Start to close. Nothing new is accepted from either side. What was accepted is delivered if the peer consumes it
 * within `linger_ns`; then, and with 0 at once, everything lent is taken back within T_close, with or without the peer.
 * Stops retries. Also ends a connect in progress. `idle` follows (never inside this call). -EALREADY when idle already.
 */
int xenidc_channel_close(xenidc_channel *channel, uint64_t linger_ns);

/* Free a channel. Not idle: it is torn down at once, without its `done` calls and handlers. NULL is allowed. Inside one
 * of its handlers it is carried out after the handler returns. */
void xenidc_channel_free(xenidc_channel *channel);

enum xenidc_state {
	XENIDC_IDLE = 0,
	XENIDC_CONNECTING = 1,
	XENIDC_CONNECTED = 2,
	XENIDC_DISCONNECTING = 3,
	XENIDC_CLOSED = 4,
};
enum xenidc_state xenidc_channel_state(const xenidc_channel *channel);
const char *xenidc_state_name(enum xenidc_state state);

void *xenidc_channel_user(const xenidc_channel *channel);
void xenidc_channel_set_user(xenidc_channel *channel, void *user);
xenidc_loop *xenidc_channel_loop(const xenidc_channel *channel);
/* Credit at hand. */
uint32_t xenidc_channel_request_credit(const xenidc_channel *channel);
uint32_t xenidc_channel_message_credit(const xenidc_channel *channel);
/* NULL unless connected or disconnecting. */
const struct xenidc_limits *xenidc_channel_limits(const xenidc_channel *channel);

struct xenidc_stats {
	size_t size;
	uint64_t requests_out, requests_in, replies_out, replies_in, messages_out, messages_in;
	uint64_t ended_not_executed, ended_unknown;
	uint64_t bytes_out, bytes_in; /* payload and buffer bytes */
	uint64_t frames_out, frames_in;
	uint64_t copies; /* of buffer data, by this library, on this side */
	uint64_t copied_bytes;
	uint64_t wakeups_sent;       /* notifications that entered the kernel to wake the peer */
	uint64_t wakeups_suppressed; /* notifications saved because the peer was awake */
	uint64_t protocol_errors;
	uint32_t in_flight_out, in_flight_in, orphans;
	uint64_t oldest_request_ns; /* age of the oldest request of ours in flight; 0: none */
	uint64_t reserved_bytes;    /* pinned for this channel */
	uint64_t quarantined_bytes; /* of earlier incarnations, that a peer may still see */
	uint32_t quarantined_regions;
	uint32_t incarnation;
};
void xenidc_channel_stats(const xenidc_channel *channel, struct xenidc_stats *ret);

/* ------------------------------------------------------------------------------------------------------------------
 * Listeners
 */

/* Filled in by the accept hook for the channel about to be made; preset from the listener's options. */
struct xenidc_accept {
	struct xenidc_channel_options channel;
	enum xenidc_reason refuse_reason; /* when the hook refuses: DENIED by default */
	char refuse_text[160];            /* sent to the peer */
};

struct xenidc_listener_options {
	size_t size;
	struct xenidc_channel_options channel; /* for accepted channels; retry is not used */
	/*
	 * Sees who is there before anything is reserved. Returns 0 to accept, or a negative errno to refuse. NULL:
	 * accept whoever the transport lets in. Makes no other call of this library but xenidc_*_user().
	 */
	int (*accept)(xenidc_listener *listener, const struct xenidc_peer *peer, struct xenidc_accept *accept);
	/* A channel was made and is about to be connected; from here on it is the client's, who frees it in or after
	 * its `idle`. NULL: the listener frees it after `idle`. */
	void (*accepted)(xenidc_listener *listener, xenidc_channel *channel);
	void *user;
	uint32_t channels_max;  /* at the same time; 0: 256 */
	uint32_t half_open_max; /* not yet through the connect; 0: 64 */
	uint64_t bytes_max;     /* reserved by all its channels together; 0: 1 GiB */
	const char *service;    /* only this service is served; NULL: the /SERVICE of the address, or any */
};

/*
 * Listen. -EADDRINUSE (somebody lives there; a stale socket file is taken over), -EACCES, -EADDRNOTAVAIL, -EINVAL,
 * -ENAMETOOLONG, -EPROTONOSUPPORT. The caller frees it; its channels live on.
 */
int xenidc_listener_new(xenidc_loop *loop, const char *address, const struct xenidc_listener_options *options,
			xenidc_listener **ret, struct xenidc_error *err);
void xenidc_listener_free(xenidc_listener *listener);
void *xenidc_listener_user(const xenidc_listener *listener);
/* The address as it can be given to xenidc_channel_connect() (a port chosen by the kernel filled in; a listener
 * at all addresses names this machine's loopback). */
const char *xenidc_listener_address(const xenidc_listener *listener);

/* ------------------------------------------------------------------------------------------------------------------
 * Log and trace
 *
 * The library writes nothing by itself but what XENIDC_TRACE in the environment asks for ("frames": one line a frame to
 * stderr). Warnings about peers go to the function set here, at most 10 a second a process.
 */
typedef void xenidc_log_fn(int priority, const char *line); /* priority as in syslog(3); the line is printable */
void xenidc_set_log(xenidc_log_fn *fn);

/*
 * Self-diagnosis for tools: calls `line` once for each thing checked. `level`: 0 fine, 1 worth knowing, 2 a problem;
 * `text` says what was found, `advice` (may be NULL) what to do.
 */
typedef void xenidc_diagnose_line(void *user, const char *area, int level, const char *text, const char *advice);
void xenidc_diagnose(xenidc_diagnose_line *line, void *user);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
