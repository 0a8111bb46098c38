/* SPDX-License-Identifier: MIT */
/*
 * Inside of the simulated world.
 *
 *     machine.c   the table of OS calls: clock, randomness, memory that belongs to processes
 *     world.c     processes, who runs next, events that are due, descriptors
 *     waiter.c    how a loop looks and sleeps here
 *     net.c       names that somebody listens at; links, which carry bytes between two ends, late or never
 *     mapped.c, stream.c, window.c   the transports
 */
#ifndef TESTS_SIM_SIM_H
#define TESTS_SIM_SIM_H

#include <stddef.h>
#include <ucontext.h>

#include "world.h"
#include "xenidc-core/base/counters.h"
#include "xenidc-core/base/list.h"
#include "xenidc-core/loop.h"

#define SIM_PROCESSES 16
#define SIM_EVENTS 8192
#define SIM_FDS 2048
#define SIM_FD_FIRST 100000
#define SIM_WATCHES 512
#define SIM_WORDS 128
#define SIM_STACK (256u << 10)
#define SIM_MS ((uint64_t)1000000)

/* --- Something that happens later. Embedded, zeroed before first use. */
struct sim_event {
	uint64_t due, order;
	size_t place; /* in the heap, plus one; 0: does not wait */
	void (*fn)(struct sim_event *event);
};
void sim_event_start(struct sim_event *event, uint64_t due, void (*fn)(struct sim_event *event)); /* or move */
void sim_event_stop(struct sim_event *event);
/* Run what is due. */
unsigned sim_events_run(void);
uint64_t sim_events_next(void); /* UINT64_MAX: none */

/* --- Descriptors: numbers with a readiness, nothing behind them. */
int sim_fd_new(void);
void sim_fd_free(int fd);
void sim_fd_set(int fd, uint32_t events, bool on);
uint32_t sim_fd_ready(int fd);
bool sim_fd_exists(int fd);

/* --- Processes */
struct sim_waiter;
struct sim_process {
	const char *name;
	unsigned index;
	bool alive, paused;
	xenidc_loop *loop;
	struct sim_waiter *waiter;
	struct xi_list blocks; /* its memory */
	int64_t objects[XI_OBJECT_KINDS];
	uint64_t allocations;
	unsigned no_allocations; /* calls under way that may not allocate */
	uint64_t short_until;    /* some allocations fail until then */
	/* Coroutine. */
	bool coroutine, asleep, finished;
	uint64_t ready_at; /* runs not before this: the delay of a wake-up */
	void (*body)(struct sim_process *process, void *arg);
	void *arg;
	void *stack, *fiber;
	ucontext_t context;
};

/* Who runs now; NULL: the test itself. */
struct sim_process *sim_current(void);
struct sim_process *sim_process_at(unsigned i); /* NULL behind the last */
struct sim_process *sim_process_of(xenidc_loop *loop);
/* Nothing is under way, nobody is about to wake up, nobody is stopped: only time can change something. */
bool sim_quiet(void);
/* Give others a turn, if this is a coroutine. */
void sim_yield(void);
/* The run so far, as one number; and something that happened. */
void sim_note(uint64_t what);
bool sim_tracing(void);
void sim_trace(const char *format, ...) __attribute__((format(printf, 1, 2)));
const struct sim_options *sim_options(void);

/* --- machine.c */
void sim_seed(uint64_t seed);
void sim_machine_begin(uint64_t seed);
void sim_machine_end(void);
void sim_set_now(uint64_t now);
/* Does the next allocation of the current process fail? */
bool sim_no_memory(void);
void sim_forbid_allocations(struct sim_process *process, bool forbid);
/* Everything that a process had is gone, also its objects in the counters. */
void sim_machine_bury(struct sim_process *process);
/* Objects made or destroyed since the last call belong to `process`. */
void sim_machine_account(struct sim_process *process);

/* --- waiter.c */
extern const struct xi_waiter sim_waiter;
/* Is there a reason for it to wake up? */
bool sim_waiter_ready(const struct sim_waiter *w);
/* Is a watched descriptor ready, whether it sees that or not? */
bool sim_waiter_has_news(const struct sim_waiter *w);
uint64_t sim_waiter_until(const struct sim_waiter *w);
/* Somebody woke the sleepers of this word (an address of the sleeper's own). */
void sim_waiter_wake_word(struct sim_process *process, const uint32_t *word);
/* Wake it for nothing. */
void sim_wake(struct sim_process *process);
/* World: let others run until the waiter is ready (a loop that the test steps and that waits). */
void sim_wait_plain(struct sim_process *process);
/* World: sleep of a coroutine. */
void sim_wait_coroutine(struct sim_process *process);

/* --- net.c */
struct sim_name;
struct sim_link;

/* Bytes under way to one end: a ring. The first `visible` of `used` bytes have arrived. */
struct sim_pipe {
	uint8_t *bytes;
	uint32_t size, head, used, visible;
	bool ending, ended; /* nothing follows what is under way; all of it has arrived */
	struct sim_event arrival;
};

struct sim_end {
	struct sim_link *link;
	struct sim_process *process; /* NULL: not accepted yet */
	int fd;
	bool closed, dead; /* dead: its process was killed */
	struct sim_pipe in;
	/* The transport's: */
	void *user;
	unsigned rings;
	struct sim_event bell, work;
};

struct sim_link {
	struct xi_list list;
	struct sim_end end[2]; /* 0: who dialled */
	const char *scheme;
	char name[XENIDC_SERVICE_MAX + 1];
	bool connected, refused, broken; /* broken: nothing goes through any more */
	bool silent;                     /* the end of one side does not show at the other */
	struct sim_event connect;
	/* The transport's: something has arrived at this end, or it was connected, refused, broken, or ended by the
	 * other side. Not called for an end that is closed. */
	void (*arrived)(struct sim_end *end);
	/* The transport's: this end is about to be closed, perhaps since its process died. Optional. */
	void (*closing)(struct sim_end *end);
};

/* Listen. NULL: the name is taken. */
struct sim_name *sim_name_new(const char *scheme, const char *name, xenidc_loop *loop);
void sim_name_free(struct sim_name *name);
int sim_name_fd(const struct sim_name *name);
/* The next who wants to be let in, end 1 is ours then; NULL: nobody. */
struct sim_link *sim_name_accept(struct sim_name *name);
/* The common form of addresses here; `service` as in the op check(). */
int sim_name_check(const char *rest, char *service, struct xenidc_error *err);

/* Dial. What comes of it shows in `connected` or `refused`. `bytes`: of a pipe. */
struct sim_link *sim_link_dial(const char *scheme, const char *rest, xenidc_loop *loop, uint32_t bytes);
struct sim_end *sim_end_other(struct sim_end *end);
/* Until when nothing goes from this end to the other; 0: it does. */
uint64_t sim_end_stalled(struct sim_end *from);
/* When something sent now from this end arrives. */
uint64_t sim_end_due(struct sim_end *from);
/* Bytes that could be put. */
uint32_t sim_end_room(struct sim_end *from);
/* Put into the way to the other end; there is room (asserted). */
void sim_end_put(struct sim_end *from, const void *bytes, uint32_t length);
/* Look at bytes that have arrived, from `at` on; take the first ones. */
void sim_end_peek(const struct sim_end *end, uint32_t at, void *to, uint32_t length);
void sim_end_take(struct sim_end *end, uint32_t length);
/* Nothing is left and nothing will come. */
bool sim_end_over(const struct sim_end *end);
/* Set the fd: readable when there is something to look at, writable when there is room. */
void sim_end_refresh(struct sim_end *end);
/* This end is done with the link. True: it was the last, and the link is gone. */
bool sim_end_close(struct sim_end *end);
void sim_link_break(struct sim_link *link);
/* The links that are there. */
struct sim_link *sim_link_next(struct sim_link *link); /* NULL: the first */
void sim_net_begin(void);
void sim_net_end(void);
/* What the kernel does with the connections of a process that died. */
void sim_net_died(struct sim_process *process);

/* --- the transports */
extern const struct xi_transport sim_transport_mapped, sim_transport_stream, sim_transport_window;
/* When a pipe last said that it is short of memory. */
uint64_t sim_stream_starved(void);
void sim_mapped_end(void);
void sim_mapped_died(struct sim_process *process);
/* Write into regions of this process that the peer has let go of, late. Returns how many there were. */
unsigned sim_mapped_scribble(struct sim_process *process);

#endif
