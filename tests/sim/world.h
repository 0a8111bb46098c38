/* SPDX-License-Identifier: MIT */
/*
 * A simulated machine park: one thread, virtual time, one seed. There is one world at a time.
 *
 *     sim_begin(seed, NULL)          instead of the OS calls: our clock, entropy and memory; schemes sim-mapped:,
 *                                    sim-stream: and sim-window: exist
 *     p = sim_process_new("server")  as many as wanted
 *     sim_loop_new(p, &options, &loop)
 *     ... listen at "sim-stream:NAME", connect to it, submit ...
 *     while (!done && (sim_step() || sim_advance()))
 *             ;
 *     sim_end()                      after the loops were freed
 *
 * There are two ways to run the loops. Here the test owns them and steps them, with xenidc_loop_step(loop, 0) or with
 * sim_step(). In the other one (sim_start(), coroutines) the world owns them: they really sleep, and lose the processor
 * at any access to shared memory; the simulator and the tests of races use that.
 *
 * A process that dies is never run again, and its memory goes, as with SIGKILL: no code of the library runs for it, so
 * its loop, channels and listeners are gone without being freed, and must not be touched.
 *
 * What a process is killed with has to be known to be its own: calls of the test for that process (making channels and
 * listeners, submitting, ...) are wrapped in sim_as(). Else it is told as left behind in sim_end().
 *
 * NAME is one word; what listens is found by scheme and name. The world itself allocates in sim_begin() and when
 * connections are made, never while they are up.
 */
#ifndef TESTS_SIM_WORLD_H
#define TESTS_SIM_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include <xenidc/transport.h>
#include <xenidc/xenidc.h>

struct sim_process;

/* How bytes of sim-stream: are cut. */
enum sim_chunks {
	SIM_CHUNKS_RANDOM = 0, /* any way, differently each time */
	SIM_CHUNKS_WHOLE,      /* all that is there */
	SIM_CHUNKS_BYTE,       /* one byte a read and a write */
};

struct sim_options {
	enum sim_chunks chunks;
	uint32_t pipe_bytes;  /* sim-stream: bytes under way in one direction; 0: 65536 */
	uint32_t queue_depth; /* sim-window: work requests not yet completed; 0: 8 */
	uint64_t delay_ns;    /* the longest that something is under way (drawn each time); 0: arrives at once */
	bool trace;           /* a line to stderr for each event */
};

/* Begin a world, the one before must have ended; before anything else of the library is called for the first time. */
void sim_begin(uint64_t seed, const struct sim_options *options);
/* End it. Everything of the library's has to be freed, but what belonged to processes that died. */
void sim_end(void);

struct sim_process *sim_process_new(const char *name);
/* As xenidc_loop_new(), for a loop of that process. */
int sim_loop_new(struct sim_process *process, const struct xenidc_loop_options *options, xenidc_loop **ret);

/* One turn for each loop that lives, in an order drawn anew. Returns the number of events; 0: nothing is ready now. */
unsigned sim_step(void);
/* Move the clock to whatever is due next, a timer of a loop or something under way. False: there is nothing. */
bool sim_advance(void);
/* Let that much time pass, stepping meanwhile. */
void sim_pass(uint64_t ns);
uint64_t sim_now(void);

/*
 * Whose code runs: memory and objects that are made belong to that process, and go with it when it is killed. The test
 * says so around its own calls for a process that it is going to kill; within sim_step() the world knows by itself.
 * NULL: nobody's. Returns who it was before.
 */
struct sim_process *sim_as(struct sim_process *process);

/* SIGKILL. Peers on sim-mapped: are told by the kernel, on sim-stream: they see the end of the stream, on sim-window:
 * their work fails some time later. */
void sim_kill(struct sim_process *process);
/* SIGSTOP and SIGCONT. */
void sim_pause(struct sim_process *process, bool paused);
/* The suspend of all machines at once: the clock jumps, nobody has run. */
void sim_jump(uint64_t ns);

/* Break all connections between these two (NULL: everybody else). On sim-mapped: the rendezvous is cut. */
void sim_cut(struct sim_process *a, struct sim_process *b);
/* Nothing goes through from `from` to `to` (NULL: all others) for that long; it arrives later. Not on sim-mapped:. */
void sim_stall(struct sim_process *from, struct sim_process *to, uint64_t ns);
void sim_set_chunks(enum sim_chunks chunks);

/*
 * Coroutines. `body` makes its loop and runs it, with a stack of its own; xenidc_loop_step() really sleeps there.
 * sim_run() gives one of those who can run a turn: until it sleeps, returns, or loses the processor. False: nobody can
 * (then sim_advance(), which knows when somebody will). A process that is killed never comes back from where it was.
 */
void sim_start(struct sim_process *process, void (*body)(struct sim_process *process, void *arg), void *arg);
bool sim_run(void);
bool sim_finished(const struct sim_process *process);
/* One in so many accesses to shared memory costs the processor; one in so many wake-ups comes late. 0: none. */
void sim_set_races(uint32_t lose_one_in, uint32_t delay_one_in);
/* What happened so far, as one number: equal for equal runs. */
uint64_t sim_hash(void);

/* Memory: calls that allocated (also mappings, but those in place of another) so far, and what is left of them. */
uint64_t sim_allocations(void);
uint64_t sim_allocated(void);

/* --- Randomness: the world's generator. Equal seeds give equal runs. */
uint64_t sim_random(void);
uint32_t sim_below(uint32_t bound);                  /* 0 .. bound-1 */
bool sim_chance(uint32_t one_in);                    /* 0: never */
uint64_t sim_between(uint64_t least, uint64_t most); /* both included */

#endif
