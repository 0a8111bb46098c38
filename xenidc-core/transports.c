/* SPDX-License-Identifier: MIT */
/* A new transport is one line here. */
#include "transports.h"

#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/os.h"

extern const struct xi_transport xi_transport_shm;
extern const struct xi_transport xi_transport_tcp;

static const struct xi_transport *const table[] = {
	&xi_transport_shm,
	&xi_transport_tcp,
};
#define TABLE (sizeof(table) / sizeof(table[0]))

/* Every op that the contract calls mandatory is there. */
static const struct xi_transport *checked(const struct xi_transport *t)
{
	XI_ASSERT(t->version == XI_TRANSPORT_VERSION && t->scheme && t->conn_size && t->listener_size);
	XI_ASSERT(t->check && t->listen && t->unlisten && t->dial && t->adopt && t->identify && t->hello);
	XI_ASSERT(t->reserve && t->export_region && t->import_region && t->tx_begin && t->tx_commit && t->flush);
	XI_ASSERT(t->tx_unsent && (t->fetch || t->caps & XI_CAP_STREAM) && t->process && t->arm && t->disarm);
	XI_ASSERT(t->close && t->fini && t->diagnose);
	return t;
}

#ifdef XI_TESTING
static const struct xi_transport *added[8];
static unsigned added_count;

void xi_transport_add(const struct xi_transport *transport)
{
	XI_ASSERT(added_count < sizeof(added) / sizeof(added[0]));
	added[added_count++] = checked(transport);
}
#endif

const struct xi_transport *xi_transport_at(unsigned i)
{
	if (i < TABLE)
		return checked(table[i]);
#ifdef XI_TESTING
	if (i - TABLE < added_count)
		return added[i - TABLE];
#endif
	return NULL;
}

const struct xi_transport *xi_transport_find(const char *scheme, size_t length)
{
	const struct xi_transport *t;

	XI_ASSERT(scheme);
	for (unsigned i = 0; (t = xi_transport_at(i)); i++)
		if (strlen(t->scheme) == length && !memcmp(t->scheme, scheme, length))
			return t;
	return NULL;
}

static void diagnose_host(xenidc_diagnose_line *line, void *user)
{
	char text[160];
	uint64_t limit = xi_os->memlock_limit();
	int cpus = xi_os->cpus();

	XI_ASSERT(cpus > 0);
	snprintf(text, sizeof(text), "%d processors are online", cpus);
	line(user, "host", cpus > 1 ? 0 : 1, text,
	     cpus > 1 ? NULL
		      : "both ends of a channel share one processor: `spin` only costs, use `adaptive` or `block`");
	if (limit == UINT64_MAX)
		snprintf(text, sizeof(text), "no limit on locked memory");
	else
		snprintf(text, sizeof(text), "locked memory is limited to %llu kB", (unsigned long long)(limit >> 10));
	line(user, "host", limit >= (4u << 20) ? 0 : 1, text,
	     limit >= (4u << 20) ? NULL : "a default channel may pin up to 4 MiB: raise it with `ulimit -l`");
}

void xenidc_diagnose(xenidc_diagnose_line *line, void *user)
{
	const struct xi_transport *t;

	XI_ASSERT(TABLE > 0);
	XI_ASSERT(line);
	diagnose_host(line, user);
	for (unsigned i = 0; (t = xi_transport_at(i)); i++)
		t->diagnose(line, user);
}
