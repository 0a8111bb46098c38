/* SPDX-License-Identifier: MIT */
/*
 * The general run: seeds, each with its own configuration, clients and faults; everything that is promised is checked
 * after every step (model.h). The kept seeds of tests/regress/seeds come first.
 *
 *     test_simulator [--seeds FIRST-LAST] [--events N] [--personality mapped|stream|window] [--trace] [--quiet]
 *     test_simulator --seed N ...    one of them, as it is printed when it fails
 */
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model.h"

#define SEEDS 500
#define EVENTS_DEFAULT 5000
#define TURNS_MAX 400 /* for each event: more means that nothing comes of them */
#define WIND_UP_TURNS 2000000
#define REGRESS "tests/regress/seeds"
/* One seed in so many is run twice: the second run has to be the same. */
#define TWICE 20
#define SECONDS_A_RUN 60

static const char *const personalities[PERSONALITIES] = { "mapped", "stream", "window" };

struct config config;
static uint64_t events_wanted = EVENTS_DEFAULT;
static bool trace;

static void say_how_to_repeat(void)
{
	fprintf(stderr, "to see it again: test_simulator --personality %s --seed %llu --events %llu --trace\n",
		personalities[config.personality], (unsigned long long)config.seed, (unsigned long long)events_wanted);
}

void model_fail(const char *file, int line, const char *format, ...)
{
	va_list args;

	fflush(stdout);
	fprintf(stderr, "FAIL %s seed %llu, after %llu events, %.3f ms: ", personalities[config.personality],
		(unsigned long long)config.seed, (unsigned long long)histogram_events(), (double)sim_now() / 1e6);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, " (%s:%d)\n", file, line);
	say_how_to_repeat();
	_exit(1);
}

static void crashed(int signal_number)
{
	fflush(stdout);
	fprintf(stderr, "FAIL %s seed %llu, after %llu events: %s\n", personalities[config.personality],
		(unsigned long long)config.seed, (unsigned long long)histogram_events(),
		signal_number == SIGALRM ? "it never ends" : strsignal(signal_number));
	say_how_to_repeat();
	signal(SIGABRT, SIG_DFL);
	abort();
}

/* --- Configuration of a run */
static void draw_times(void)
{
	config.times = (struct xenidc_times){ .heartbeat_ns = 5000 * SIM_MS,
					      .stalled_ns = 10000 * SIM_MS,
					      .dead_ns = 20000 * SIM_MS,
					      .close_ns = 1000 * SIM_MS,
					      .connect_ns = 10000 * SIM_MS };
	if (sim_chance(2))
		config.times = (struct xenidc_times){ .heartbeat_ns = 60 * SIM_MS,
						      .stalled_ns = 120 * SIM_MS,
						      .dead_ns = 250 * SIM_MS,
						      .close_ns = 20 * SIM_MS,
						      .connect_ns = 100 * SIM_MS };
}

static void draw_faults(void)
{
	config.faults = !sim_chance(4);
	config.fault_one_in = (uint32_t)sim_between(100, 3000);
	for (int f = FAULT_STALL; f < FAULTS; f++)
		config.kinds[f] = sim_chance(2) ? sim_below(8) : 0;
	if (config.personality == MAPPED)
		config.kinds[FAULT_STALL] = config.kinds[FAULT_LOSS] = 0;
	else
		config.kinds[FAULT_LATE_WRITE] = 0;
	config.kinds[FAULT_LATE_WAKE] += 1;
}

static struct sim_options draw_options(void)
{
	static const uint64_t delays[] = { 0, 0, 20000, 500000, 5 * SIM_MS };
	struct sim_options o = { .trace = trace };

	o.chunks = sim_chance(8) ? SIM_CHUNKS_BYTE : sim_chance(3) ? SIM_CHUNKS_WHOLE : SIM_CHUNKS_RANDOM;
	o.pipe_bytes = sim_chance(3) ? 300 + sim_below(4000) : 65536;
	o.queue_depth = 1 + sim_below(12);
	o.delay_ns = delays[sim_below(5)];
	return o;
}

/* What a seed means is drawn with a generator of its own, before the world begins. */
static void draw(enum personality personality, uint64_t seed)
{
	config = (struct config){ .personality = personality, .seed = seed };
	sim_seed(seed * PERSONALITIES + personality + 1);
	config.clients = sim_chance(3) ? 2 : 1;
	config.map = personality == MAPPED && sim_chance(3);
	config.digest = personality == STREAM && sim_chance(2);
	config.retry = sim_chance(3);
	config.adaptive = sim_chance(6);
	config.calm = sim_chance(3) ? 1 : sim_chance(2) ? 5 : 30;
	config.hold_percent = sim_chance(3) ? 0 : sim_below(90);
	config.timeout_percent = sim_chance(2) ? 0 : sim_below(50);
	config.lose_one_in = sim_chance(3) ? 0 : 2 + sim_below(30);
	config.delay_one_in = sim_chance(3) ? 1 + sim_below(10) : 0;
	draw_times();
	draw_faults();
	config.options = draw_options();
}

/* --- Faults */
static struct side *random_side(void)
{
	struct side *s = &sides[sim_below(config.clients + 1)];

	return s->process && s->process->alive ? s : NULL;
}

static void continue_side(struct sim_event *event)
{
	struct side *s = XI_CONTAINER(event, struct side, life);

	sim_pause(s->process, false);
	sides_forgive(s, sim_now() - s->paused_at);
	histogram_fault(FAULT_PAUSE, 0);
}

static void start_again(struct sim_event *event)
{
	struct side *s = XI_CONTAINER(event, struct side, life);

	side_start(s);
}

static void pause_side(struct side *s, uint64_t ns)
{
	if (s->process->paused)
		return;
	s->paused_at = sim_now();
	sim_pause(s->process, true);
	sim_event_start(&s->life, sim_now() + ns, continue_side);
}

static void kill_side(struct side *s)
{
	struct sim_process *p = s->process;

	side_died(s);
	sim_kill(p);
	sim_event_start(&s->life, sim_now() + sim_between(0, 50 * SIM_MS), start_again);
}

static uint64_t some_time(void)
{
	return sim_chance(4) ? sim_between(0, 2 * config.times.dead_ns) : sim_between(0, 60 * SIM_MS);
}

static void stall(struct side *s, uint64_t ns)
{
	if (!sim_chance(3))
		sim_stall(s->process, NULL, ns);
	if (!sim_chance(3))
		sim_stall(NULL, s->process, ns);
}

static void jump(void)
{
	uint64_t ns = sim_chance(2) ? sim_between(0, 3000 * SIM_MS) : sim_between(0, 3600000 * SIM_MS);

	sim_jump(ns);
	for (unsigned i = 0; i < SIDES; i++)
		sides_forgive(&sides[i], ns);
}

static enum fault draw_fault(void)
{
	uint32_t sum = 0, at;
	int f;

	for (f = 1; f < FAULTS; f++)
		sum += config.kinds[f];
	at = sim_below(sum);
	for (f = 1; at >= config.kinds[f]; f++)
		at -= config.kinds[f];
	return (enum fault)f;
}

static void one_fault(void)
{
	enum fault f = draw_fault();
	struct side *s = random_side();
	uint64_t ns = some_time();

	if (!s)
		return;
	sim_trace("fault %d at %s, %llu us", (int)f, s->name, (unsigned long long)ns / 1000);
	sim_note((uint64_t)f << 56 | ns);
	switch (f) {
	case FAULT_STALL:
		stall(s, ns);
		break;
	case FAULT_LOSS:
		sim_cut(s->process, NULL);
		break;
	case FAULT_DEATH:
		kill_side(s);
		break;
	case FAULT_PAUSE:
		pause_side(s, ns);
		break;
	case FAULT_JUMP:
		jump();
		break;
	case FAULT_LATE_WRITE:
		return; /* as soon as there is an opportunity: late_write() */
	case FAULT_MEMORY:
		s->process->short_until = sim_now() + ns;
		break;
	default:
		sim_wake(s->process);
	}
	histogram_fault(f, f == FAULT_STALL || f == FAULT_PAUSE || f == FAULT_MEMORY ? ns : 0);
}

/* --- Turns */
static uint64_t quiet_checks;

static void check_quiet(void)
{
	if (!sim_quiet() || (config.personality == STREAM && sim_now() <= sim_stream_starved() + 5 * SIM_MS))
		return;
	quiet_checks++;
	shadow_check_quiet();
}

static void nobody_can_run(void)
{
	struct side *s = random_side();

	check_quiet();
	if (sim_chance(3) || !s)
		sim_advance();
	else
		side_poke(s, 1 + sim_below(5));
}

static void late_write(void)
{
	const struct side *s = random_side();

	if (s && sim_mapped_scribble(s->process))
		histogram_fault(FAULT_LATE_WRITE, 0);
}

static void one_turn(void)
{
	if (config.kinds[FAULT_LATE_WRITE] && sim_chance(4))
		late_write();
	if (config.faults && sim_chance(config.fault_one_in))
		one_fault();
	if (sim_chance(12) && random_side())
		side_poke(&sides[sim_below(config.clients + 1)], 1 + sim_below(3));
	if (!sim_run())
		nobody_can_run();
	for (unsigned i = 0; i < SIDES; i++)
		side_check_times(&sides[i]);
}

static bool all_idle(void)
{
	for (unsigned i = 0; i < SIDES; i++)
		for (unsigned k = 0; k < CHANNELS; k++)
			if (sides[i].chans[k].channel && (sides[i].chans[k].up || sides[i].chans[k].connecting))
				return false;
	return true;
}

static bool all_finished(void)
{
	for (unsigned i = 0; i < SIDES; i++)
		if (sides[i].process && sides[i].process->alive && !sim_finished(sides[i].process))
			return false;
	return true;
}

static void heal(void)
{
	sim_trace("winding up");
	sim_stall(NULL, NULL, 0);
	for (unsigned i = 0; i < SIDES; i++) {
		struct side *s = &sides[i];
		if (s->process && s->process->paused) {
			sim_event_stop(&s->life);
			continue_side(&s->life);
		}
		sim_event_stop(&s->life);
		if (s->process)
			s->process->short_until = 0;
		s->winding_up = true;
	}
}

/* All faults are over: everything ends in order, within its time. */
static void wind_up(void)
{
	heal();
	for (uint64_t turns = 0; !all_idle(); turns++) {
		MUST(turns < WIND_UP_TURNS, "nothing becomes idle");
		for (unsigned i = 0; i < SIDES; i++)
			side_check_times(&sides[i]);
		if (sim_run())
			continue;
		check_quiet();
		if (sim_chance(2))
			sim_advance();
		else
			side_poke(&sides[sim_below(SIDES)], 1);
	}
	for (unsigned i = 0; i < SIDES; i++)
		sides[i].quit = true;
	for (uint64_t turns = 0; !all_finished(); turns++) {
		MUST(turns < WIND_UP_TURNS, "a loop never returns from its step");
		if (sim_run())
			continue;
		sim_advance();
		side_poke(&sides[sim_below(SIDES)], 1);
	}
}

/* --- Runs */
static uint64_t run(enum personality personality, uint64_t seed)
{
	int64_t objects[XI_OBJECT_KINDS];
	uint64_t hash;

	alarm(SECONDS_A_RUN);
	for (int i = 0; i < XI_OBJECT_KINDS; i++)
		objects[i] = xi_alive((enum xi_object)i);
	draw(personality, seed);
	sim_begin(seed * PERSONALITIES + (uint64_t)personality, &config.options);
	sim_set_races(config.lose_one_in, config.delay_one_in);
	shadow_begin();
	histogram_new_run();
	sides_begin();
	for (unsigned i = 0; i <= config.clients; i++)
		side_start(&sides[i]);
	for (uint64_t turns = 0; histogram_events() < events_wanted; turns++) {
		MUST(turns < events_wanted * TURNS_MAX, "turns, but no events");
		one_turn();
	}
	wind_up();
	shadow_check_over();
	sim_note(histogram_events());
	hash = sim_hash();
	sim_end();
	for (int i = 0; i < XI_OBJECT_KINDS; i++)
		MUST(xi_alive((enum xi_object)i) == objects[i], "%lld objects of kind %s are left",
		     (long long)(xi_alive((enum xi_object)i) - objects[i]), xi_object_name((enum xi_object)i));
	alarm(0);
	return hash;
}

static void run_kept(void)
{
	FILE *f = fopen(REGRESS, "r");
	unsigned long long seed, events;
	uint64_t wanted = events_wanted;
	char line[200], name[16];
	unsigned n = 0;

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%15s %llu %llu", name, &seed, &events) != 3 || name[0] == '#')
			continue;
		for (int p = 0; p < PERSONALITIES; p++)
			if (!strcmp(name, personalities[p])) {
				events_wanted = events;
				run((enum personality)p, seed);
				n++;
			}
	}
	if (f)
		fclose(f);
	events_wanted = wanted;
	printf("%u kept seeds\n", n);
}

static void run_seeds(uint64_t first, uint64_t last, int only)
{
	uint64_t runs = 0, events = 0;

	for (uint64_t seed = first; seed <= last; seed++)
		for (int p = 0; p < PERSONALITIES; p++) {
			if (only >= 0 && only != p)
				continue;
			uint64_t hash = run((enum personality)p, seed);
			events += histogram_events();
			runs++;
			if (seed % TWICE == 0)
				MUST(run((enum personality)p, seed) == hash, "the same seed gives another run");
		}
	printf("%llu runs, %llu events, nothing moved %llu times, nothing amiss\n", (unsigned long long)runs,
	       (unsigned long long)events, (unsigned long long)quiet_checks);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "seeds", required_argument, NULL, 's' },
		{ "seed", required_argument, NULL, 'o' },
		{ "events", required_argument, NULL, 'e' },
		{ "trace", no_argument, NULL, 't' },
		{ "personality", required_argument, NULL, 'p' },
		{ "quiet", no_argument, NULL, 'q' },
		{ 0 },
	};
	unsigned long long first = 1, last = SEEDS;
	bool kept = true, quiet = false;
	int only = -1, o;

	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (o == 's' && sscanf(optarg, "%llu-%llu", &first, &last) == 2)
			kept = false;
		else if (o == 'o' && sscanf(optarg, "%llu", &first) == 1)
			last = first, kept = false;
		else if (o == 'e')
			events_wanted = strtoull(optarg, NULL, 10);
		else if (o == 't')
			trace = true;
		else if (o == 'q')
			quiet = true;
		else if (o == 'p')
			for (int i = 0; i < PERSONALITIES; i++)
				only = strcmp(optarg, personalities[i]) ? only : i;
		else
			return 2;
	}
	signal(SIGABRT, crashed);
	signal(SIGSEGV, crashed);
	signal(SIGALRM, crashed);
	if (kept)
		run_kept();
	run_seeds(first, last, only);
	if (!quiet)
		histogram_print();
	return 0;
}
