/* SPDX-License-Identifier: MIT */
/*
 * Kills one end of a channel under load, at random moments and at every failpoint, and looks at the other end:
 *
 *  - How each request ended is compared with the journal, in which the dead process wrote down what its handler saw.
 *    NOT_EXECUTED is never said of what stands there; UNKNOWN never of what does not, where the truth can be known.
 *  - Two seconds later nothing of the dead process is left here, and its address can be used again.
 *  - Channels to others went on meanwhile.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "xenidc-core/base/failpoint.h"

#include "bystander.h"
#include "load.h"
#include "victim.h"

#define RANDOM_KILLS 60
#define TRIES 5
#define MS 1000000u

/* Promise 7, and how soon a death is noticed (the kernel tells at once). */
#define CLEAN_MS 2000
#define NOTICE_MS 1000

enum tally_kind { TALLY_RANDOM, TALLY_FAILPOINT, TALLY_KINDS };

struct plan {
	bool tcp, listens;
	enum tally_kind kind;
	const char *failpoint; /* its name, NULL: kill from outside */
	unsigned pass;
	uint64_t kill_after_ns; /* the first connect; or the start, if `early`; with a failpoint: at the latest */
	bool early;
};

struct tally {
	unsigned kills, replied, not_executed, unknown, window;
	uint64_t notice_ns, clean_ns, bystander_ns;
};

/* One channel of ours to the victim. */
struct incarnation {
	struct load load;
	uint32_t first, last; /* first <= number < last: requests submitted on it, and maybe on another one */
	struct xenidc_timer life;
};

static struct {
	xenidc_loop *loop;
	xenidc_listener *listeners[2]; /* shm, tcp */
	struct bystander *bystanders[2];
	struct journal *journal;
	char journal_name[32];
	char names[2][64]; /* where victims listen */
	struct ends ends;
	struct rng rng;
	struct tally tally[2][2][TALLY_KINDS]; /* tcp, listens, kind */

	/* The round under way. */
	const struct plan *plan;
	struct tally *row;
	pid_t victim;
	unsigned channels;
	uint8_t next_id;
	bool dialling, reaped;
	uint64_t started_at, connected_at, dead_at;
	uint64_t notice_ns;
	uint64_t suspect_at; /* a channel ended as if the victim had died; has it? */
	struct xenidc_error suspect;
	struct census baseline;
} t;

/* --- How requests ended */

static const char *describe(uint32_t number)
{
	static char text[160];

	snprintf(text, sizeof(text), "request %u ended as %u (%s), the journal says %u; %s, the victim %s", number,
		 t.ends.end[number], xenidc_reason_name(t.ends.reason[number]), t.journal->dispatched[number],
		 t.plan->tcp ? "tcp" : "shm", t.plan->listens ? "listened" : "dialled");
	return text;
}

/* Did it end by itself, before the connection did? Then the truth may not have been known. */
static bool was_cancelled(uint32_t number)
{
	return t.ends.reason[number] == XENIDC_REASON_CANCELLED || t.ends.reason[number] == XENIDC_REASON_TIMEOUT;
}

/* UNKNOWN is only for what may have been executed. `window`: how many requests may be UNKNOWN though they do not stand
 * in the journal: the one that was just being handed to the handler when the process died. */
static void check_unknown(const struct incarnation *inc, unsigned window)
{
	uint32_t unlogged = 0;

	for (uint32_t n = inc->first; n < inc->last; n++) {
		bool logged = t.journal->dispatched[n] != 0;
		if (t.ends.channel[n] != inc->load.id)
			continue;
		if (logged && unlogged)
			check_failed(__FILE__, __LINE__, "%s, yet later ones were executed", describe(unlogged));
		if (t.ends.end[n] != XENIDC_UNKNOWN || logged || was_cancelled(n))
			continue;
		if (!window)
			check_failed(__FILE__, __LINE__,
				     "%s, but it is known that it was not executed; %s; it is number %u of %u on its "
				     "channel",
				     describe(n), inc->load.why.text, n - inc->first + 1, inc->last - inc->first);
		window--;
		unlogged = n;
		t.row->window++;
	}
}

static void check_ends(void)
{
	for (uint32_t n = 1; n < t.ends.next; n++) {
		unsigned dispatched = t.journal->dispatched[n];
		if (dispatched > 1)
			check_failed(__FILE__, __LINE__, "dispatched twice: %s", describe(n));
		switch (t.ends.end[n]) {
		case XENIDC_REPLIED:
			t.row->replied++;
			if (!dispatched)
				check_failed(__FILE__, __LINE__, "answered by nobody: %s", describe(n));
			break;
		case XENIDC_NOT_EXECUTED:
			t.row->not_executed++;
			if (dispatched)
				check_failed(__FILE__, __LINE__, "executed: %s", describe(n));
			break;
		case XENIDC_UNKNOWN:
			t.row->unknown++;
			break;
		default:
			check_failed(__FILE__, __LINE__, "never ended: %s", describe(n));
		}
	}
	CHECK_EQ(t.ends.in_flight, 0);
}

/* --- Our channels to the victim */

static void leave(struct xenidc_timer *timer)
{
	struct incarnation *inc = (struct incarnation *)(void *)((char *)timer - offsetof(struct incarnation, life));
	int r;

	inc->load.submitting = false;
	r = xenidc_channel_close(inc->load.channel, rng_below(&t.rng, 2) * 20 * MS);
	if (r && r != -EALREADY)
		check_failed(__FILE__, __LINE__, "xenidc_channel_close: %s", strerror(-r));
}

static void up(struct load *load)
{
	struct incarnation *inc = load->user;

	if (!t.connected_at)
		t.connected_at = check_now();
	/* While the victim goes through all phases, we close now and then, too. */
	if (t.plan->failpoint && rng_below(&t.rng, 4) == 0)
		CHECK_EQ(xenidc_timer_start(t.loop, &inc->life, 5 * MS + rng_below(&t.rng, 10 * MS), leave), 0);
}

static void down(struct load *load)
{
	struct incarnation *inc = load->user;
	bool kernel = load->why.reason == XENIDC_REASON_PEER_DIED;

	xenidc_timer_stop(&inc->life);
	inc->last = t.ends.next;
	CHECK(!kernel || !load->why.by_peer);
	if (load->disconnected && load->why.reason != XENIDC_REASON_CLOSED && !t.dead_at) {
		t.suspect_at = check_now();
		t.suspect = load->why;
	}
	if (load->disconnected && load->why.by_peer)
		check_unknown(inc, 0);
	else if (load->disconnected && !t.plan->tcp)
		check_unknown(inc, 1);
	if (load->disconnected && kernel && t.dead_at && load->disconnected_at > t.dead_at)
		t.notice_ns = load->disconnected_at - t.dead_at;
	t.channels--;
	t.dialling = false;
	xenidc_channel_free(load->channel);
	free(inc);
}

static struct incarnation *incarnation_new(void)
{
	struct incarnation *inc = calloc(1, sizeof(*inc));

	CHECK(inc);
	inc->load.ends = &t.ends;
	inc->load.rng.state = rng_next(&t.rng);
	inc->load.submitting = true;
	inc->load.cancels = true;
	inc->load.on_connected = up;
	inc->load.on_idle = down;
	inc->load.user = inc;
	inc->first = t.ends.next;
	inc->load.id = t.next_id++;
	t.channels++;
	return inc;
}

static void accepted(xenidc_listener *listener, xenidc_channel *channel)
{
	struct incarnation *inc = incarnation_new();

	(void)listener;
	inc->load.channel = channel;
	xenidc_channel_set_user(channel, &inc->load);
}

static void dial(void)
{
	struct incarnation *inc = incarnation_new();
	struct xenidc_channel_options options;
	struct xenidc_error err;

	t.dialling = true;
	load_options(&options, &inc->load);
	CHECK_EQ(xenidc_channel_new(t.loop, &options, &inc->load.channel, &err), 0);
	if (xenidc_channel_connect(inc->load.channel, t.journal->address, &err)) {
		/* The victim may have died since it wrote its address. */
		CHECK(proc_ended(t.victim, &(int){ 0 }) || err.reason == XENIDC_REASON_UNREACHABLE);
		check_failed(__FILE__, __LINE__, "connect: %s", err.text);
	}
}

/* --- A round */

static void start(const struct plan *plan)
{
	struct victim_plan v = { .listens = plan->listens, .cycles = plan->failpoint != NULL };
	char failpoint[96];

	journal_clear(t.journal);
	memset(&t.ends, 0, sizeof(t.ends));
	t.ends.next = 1;
	t.plan = plan;
	t.row = &t.tally[plan->tcp][plan->listens][plan->kind];
	t.reaped = t.dialling = false;
	t.connected_at = t.dead_at = t.notice_ns = t.suspect_at = 0;
	for (int i = 0; i < 2; i++)
		bystander_mark(t.bystanders[i]);
	v.address = plan->listens ? t.names[plan->tcp] : xenidc_listener_address(t.listeners[plan->tcp]);
	v.journal = t.journal_name;
	v.seed = (uint32_t)rng_next(&t.rng);
	if (plan->failpoint) {
		snprintf(failpoint, sizeof(failpoint), "%s:%u:kill", plan->failpoint, plan->pass);
		v.failpoint = failpoint;
	}
	t.started_at = check_now();
	t.victim = victim_start(&v);
}

static bool time_to_kill(void)
{
	uint64_t from = t.plan->early ? t.started_at : t.connected_at;

	/* What ends in order is told in order, however busy we are. */
	if (t.suspect_at && check_now() > t.suspect_at + 200 * MS)
		check_failed(__FILE__, __LINE__, "the victim lives, yet: %s", t.suspect.text);
	if (t.suspect_at)
		return false;

	if (t.plan->failpoint && t.connected_at == 0)
		from = t.started_at + 1000 * MS * check_factor();
	return from && check_now() > from + t.plan->kill_after_ns;
}

static void reap(int status)
{
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		check_failed(__FILE__, __LINE__, "the victim ended by itself, with wait status %#x", status);
	t.reaped = true;
	if (!t.dead_at)
		t.dead_at = check_now();
}

/* Everything that the victim could have left behind. */
static bool clean(void)
{
	struct census now;

	if (t.channels)
		return false;
	census_take(&now);
	return census_equal(&now, &t.baseline);
}

static void check_clean(uint64_t deadline)
{
	struct census now;

	if (check_now() < deadline)
		return;
	census_take(&now);
	census_print("before", &t.baseline);
	census_print("left", &now);
	check_failed(__FILE__, __LINE__, "%u ms after a death something is left, and %u channels; failpoint %s",
		     CLEAN_MS, t.channels, t.plan->failpoint ? t.plan->failpoint : "none");
}

/* Returns true if the failpoint was passed (or none was asked for). */
static bool play(const struct plan *plan)
{
	bool hit = true;
	int status;

	check_limit(plan->failpoint ? plan->failpoint : "a kill at random", 20);
	start(plan);
	while (!t.reaped || !clean()) {
		xenidc_loop_step(t.loop, t.reaped ? 1 * (int64_t)MS : MS / 5);
		if (!t.reaped && proc_ended(t.victim, &status))
			reap(status);
		if (t.reaped) {
			check_clean(t.dead_at + (uint64_t)CLEAN_MS * MS * check_factor());
			continue;
		}
		if (plan->listens && t.journal->listening && !t.dialling)
			dial();
		/* Now and then we read nothing for a while, so that what the victim sends is cut anywhere. */
		if (plan->failpoint && rng_below(&t.rng, 100) == 0)
			usleep(rng_below(&t.rng, 20000));
		if (time_to_kill()) {
			hit = plan->failpoint == NULL;
			t.dead_at = check_now();
			reap(proc_kill(t.victim));
		}
	}
	if (t.notice_ns > (uint64_t)NOTICE_MS * MS * check_factor())
		check_failed(__FILE__, __LINE__, "a death was noticed after %u ms", (unsigned)(t.notice_ns / MS));
	t.row->kills++;
	if (t.notice_ns > t.row->notice_ns)
		t.row->notice_ns = t.notice_ns;
	if (check_now() - t.dead_at > t.row->clean_ns)
		t.row->clean_ns = check_now() - t.dead_at;
	check_ends();
	for (int i = 0; i < 2; i++) {
		uint64_t worst = bystander_check(t.bystanders[i]);
		if (worst > t.row->bystander_ns)
			t.row->bystander_ns = worst;
	}
	return hit;
}

static void kill_at_random(void)
{
	struct plan plan = { .kind = TALLY_RANDOM };

	/* Two of three over shm: that is where the kernel's word and the dispatch index count. */
	plan.tcp = rng_below(&t.rng, 3) == 0;
	plan.listens = rng_below(&t.rng, 2);
	plan.early = rng_below(&t.rng, 6) == 0;
	plan.kill_after_ns = rng_below(&t.rng, plan.early ? 15 * MS : 60 * MS);
	play(&plan);
}

/*
 * Is it passed by a dialler, by a listener, over shm, over tcp? All are tried, at one of the first passes, until it
 * was; what is passed only once, or by chance, needs more than one try.
 */
static unsigned kill_at_failpoint(const char *name)
{
	unsigned hits = 0;

	for (unsigned try = 0; try < TRIES && !hits; try++)
		for (int i = 0; i < 4; i++) {
			struct plan plan = { .kind = TALLY_FAILPOINT,
					     .failpoint = name,
					     .tcp = i & 2,
					     .listens = i & 1,
					     .pass = try ? 1 : 1 + rng_below(&t.rng, 3),
					     .kill_after_ns = 150 * MS };
			hits += play(&plan);
		}
	printf("  %-32s hit in %u settings\n", name, hits);
	return hits;
}

/* --- The whole */

static void set_up(void)
{
	struct xenidc_listener_options options = { .size = sizeof(options), .accepted = accepted };
	struct xenidc_error err;
	char address[2][64], bystander[2][64];

	t.rng.state = (uint64_t)getpid() * 2654435761u ^ check_now();
	printf("seed %llu\n", (unsigned long long)t.rng.state);
	t.journal = journal_new(t.journal_name);
	load_options(&options.channel, NULL);
	CHECK_EQ(xenidc_loop_new(NULL, &t.loop), 0);
	snprintf(address[0], sizeof(address[0]), "shm:kills-%d", (int)getpid());
	snprintf(address[1], sizeof(address[1]), "tcp:127.0.0.1:0");
	snprintf(bystander[0], sizeof(bystander[0]), "shm:kills-%d-bystander", (int)getpid());
	snprintf(bystander[1], sizeof(bystander[1]), "tcp:127.0.0.1:0");
	snprintf(t.names[0], sizeof(t.names[0]), "shm:kills-%d-victim", (int)getpid());
	snprintf(t.names[1], sizeof(t.names[1]), "tcp:127.0.0.1:0");
	for (int i = 0; i < 2; i++) {
		if (xenidc_listener_new(t.loop, address[i], &options, &t.listeners[i], &err))
			check_failed(__FILE__, __LINE__, "%s", err.text);
		t.bystanders[i] = bystander_start(t.loop, bystander[i]);
	}
}

/* What is taken at first use and kept for good belongs to the baseline. */
static void settle(void)
{
	for (int i = 0; i < 4; i++) {
		struct plan plan = { .tcp = i & 1, .listens = i & 2, .kill_after_ns = 20 * MS };
		/* Whatever is here once all channels are gone is the baseline of this round. */
		start(&plan);
		while (!t.connected_at || check_now() < t.connected_at + plan.kill_after_ns) {
			xenidc_loop_step(t.loop, MS);
			if (plan.listens && t.journal->listening && !t.dialling)
				dial();
		}
		t.dead_at = check_now();
		reap(proc_kill(t.victim));
		while (t.channels)
			xenidc_loop_step(t.loop, MS);
	}
	/* Deferred frees and a quarantine's last look. */
	for (int i = 0; i < 50; i++)
		xenidc_loop_step(t.loop, MS);
	memset(t.tally, 0, sizeof(t.tally));
	census_take(&t.baseline);
	CHECK_EQ(t.baseline.children, 2);
}

static void print_table(void)
{
	static const char *const kinds[] = { "at random", "failpoint" };

	printf("%-4s %-8s %-10s %6s %8s %8s %8s %7s %9s %8s %10s\n", "", "victim", "killed", "kills", "replied",
	       "not ex.", "unknown", "window", "notice ms", "clean ms", "others ms");
	for (int tcp = 0; tcp < 2; tcp++)
		for (int listens = 0; listens < 2; listens++)
			for (int kind = 0; kind < TALLY_KINDS; kind++) {
				struct tally *y = &t.tally[tcp][listens][kind];
				printf("%-4s %-8s %-10s %6u %8u %8u %8u %7u %9.1f %8.1f %10.1f\n", tcp ? "tcp" : "shm",
				       listens ? "listened" : "dialled", kinds[kind], y->kills, y->replied,
				       y->not_executed, y->unknown, y->window, (double)y->notice_ns / MS,
				       (double)y->clean_ns / MS, (double)y->bystander_ns / MS);
			}
}

static void check_table(void)
{
	for (int tcp = 0; tcp < 2; tcp++) {
		unsigned replied = 0, not_executed = 0, unknown = 0;
		for (int i = 0; i < 2 * TALLY_KINDS; i++) {
			struct tally *y = &t.tally[tcp][i / TALLY_KINDS][i % TALLY_KINDS];
			replied += y->replied;
			not_executed += y->not_executed;
			unknown += y->unknown;
			CHECK(y->kills > 0);
		}
		/* A test in which one of the answers never came would have proved nothing about it. */
		CHECK(replied > 0 && unknown > 0 && not_executed > 0);
	}
}

static void tear_down(void)
{
	for (int i = 0; i < 2; i++) {
		bystander_stop(t.bystanders[i]);
		xenidc_listener_free(t.listeners[i]);
	}
	xenidc_loop_free(t.loop);
}

/* Passed only by a sender of very much: test_stuffed.c sees to it. */
static bool is_tested_elsewhere(const char *name)
{
	return !strcmp(name, "stream_frame_cut");
}

static void test_kills(void)
{
	unsigned missed = 0;

	set_up();
	settle();
	for (int i = 0; xi_failpoint_names[i]; i++)
		if (!is_tested_elsewhere(xi_failpoint_names[i]) && !kill_at_failpoint(xi_failpoint_names[i])) {
			printf("  %s: never passed\n", xi_failpoint_names[i]);
			missed++;
		}
	for (int i = 0; i < RANDOM_KILLS; i++)
		kill_at_random();
	print_table();
	check_table();
	tear_down();
	CHECK_EQ(missed, 0);
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = { TEST(test_kills) };

	bystander_main(argc, argv);
	victim_main(argc, argv);
	setvbuf(stdout, NULL, _IOLBF, 0);
	return check_main(argc, argv, tests, sizeof(tests) / sizeof(tests[0]));
}
