/* SPDX-License-Identifier: MIT */
/* Named places at which a test stops or kills the process. */
#include "failpoint.h"

#include <stddef.h>

#ifdef XI_FAILPOINTS
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "assert.h"
#include "os.h"

const char *const xi_failpoint_names[] = {
#define X(name) #name,
#include "failpoints.def"
#undef X
	NULL
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static _Atomic int place_set = -1; /* -1: none, the usual case, costs one load */
static _Atomic long passes_left;
static _Atomic int signal_set;

static int find_place(const char *name, size_t length)
{
	for (int i = 0; i < XI_FAILPOINTS_END; i++)
		if (strlen(xi_failpoint_names[i]) == length && !memcmp(xi_failpoint_names[i], name, length))
			return i;
	return -1;
}

static bool parse(const char *text)
{
	atomic_store(&place_set, -1);
	if (!text)
		return true;
	const char *colon = strchr(text, ':');
	if (!colon)
		return false;
	int place = find_place(text, (size_t)(colon - text));
	char *end;
	long passes = strtol(colon + 1, &end, 10);
	int action = !strcmp(end, ":kill") ? SIGKILL : !strcmp(end, ":stop") ? SIGSTOP : 0;
	if (place < 0 || passes < 1 || !action)
		return false;
	atomic_store(&passes_left, passes);
	atomic_store(&signal_set, action);
	atomic_store(&place_set, place);
	return true;
}

static void read_environment(void)
{
	/* A typing error must not look like a test that passed. */
	XI_ASSERT(parse(xi_os->getenv("XENIDC_FAILPOINT")));
}

bool xi_failpoint_set(const char *text)
{
	pthread_once(&once, read_environment);
	return parse(text);
}

void xi_failpoint_hit(enum xi_failpoint place)
{
	XI_ASSERT(place < XI_FAILPOINTS_END);
	pthread_once(&once, read_environment);
	if (atomic_load_explicit(&place_set, memory_order_relaxed) != (int)place)
		return;
	if (atomic_fetch_sub(&passes_left, 1) == 1)
		raise(atomic_load(&signal_set));
}
#else
const char *const xi_failpoint_names[] = { NULL };
#endif
