/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "same.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "tests/lib/check.h"
#include "transport-local/shm/shm.h"
#include "xenidc-core/base/cursor.h"
#include "xenidc-core/base/limits.h"
#include "xenidc-core/transports.h"

extern const struct xi_transport xi_transport_shm;

/* Regions, and how many ends use each: the last one frees it. */
#define REGIONS 512
static struct region {
	struct xi_shm_link link; /* that made it: only what region.c uses */
	unsigned users;
} regions[REGIONS];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static struct xi_domain domain;
static struct xi_transport same;

static struct region *region_at(const uint8_t *base)
{
	for (unsigned i = 0; i < REGIONS; i++)
		if (regions[i].users && regions[i].link.base == base)
			return &regions[i];
	return NULL;
}

static void release(const uint8_t *base)
{
	struct region *r;

	if (!base)
		return;
	pthread_mutex_lock(&mutex);
	r = region_at(base);
	CHECK(r);
	if (--r->users == 0)
		xi_shm_region_drop(&r->link);
	pthread_mutex_unlock(&mutex);
}

static int make(struct xi_local *local, uint64_t bytes, uint8_t **ret_base, struct xenidc_error *err)
{
	struct xi_shm_link *link = ((struct xi_shm *)local)->link;
	struct region *r = regions;
	int e;

	pthread_mutex_lock(&mutex);
	while (r->users)
		CHECK(++r < regions + REGIONS);
	r->link = (struct xi_shm_link){ .socket = 0 };
	e = xi_shm_region_make(&r->link, bytes, err);
	if (e)
		xi_shm_region_drop(&r->link);
	else
		r->users = 1;
	*ret_base = r->link.base;
	pthread_mutex_unlock(&mutex);
	link->owner = xi_conn_owner(local->conn);
	return e;
}

static void export(struct xi_local *local, struct xi_writer *w)
{
	xi_put_u64(w, (uintptr_t)local->ring.own);
}

static int import(struct xi_local *local, struct xi_reader *r, uint64_t bytes, const uint8_t **ret_base,
		  struct xenidc_error *err)
{
	struct region *region;

	(void)local;
	(void)err;
	*ret_base = (const uint8_t *)(uintptr_t)xi_get_u64(r);
	pthread_mutex_lock(&mutex);
	region = region_at(*ret_base);
	CHECK(region && region->link.bytes == bytes);
	region->users++;
	pthread_mutex_unlock(&mutex);
	return 0;
}

/* It is the other end's own memory: zeros would be seen there. */
static void zero(struct xi_local *local)
{
	(void)local;
}

static void fini(struct xi_local *local)
{
	release(local->imported ? local->peer : NULL);
	release(local->ring.own);
	((struct xi_shm *)local)->link->lent = false; /* nothing is quarantined */
	xi_shm_link_leave(((struct xi_shm *)local)->link);
}

static int dial(struct xi_conn *conn, const char *rest, struct xenidc_error *err)
{
	int e = xi_transport_shm.dial(conn, rest, err);

	if (e == 0)
		((struct xi_local *)xi_conn_priv(conn))->domain = &domain;
	return e;
}

static void adopt(struct xi_conn *conn, void *arg)
{
	xi_transport_shm.adopt(conn, arg);
	((struct xi_local *)xi_conn_priv(conn))->domain = &domain;
}

static int listen_at(struct xi_listener *listener, const char *rest, char *name, struct xenidc_error *err)
{
	int e = xi_transport_shm.listen(listener, rest, name, err);

	if (e == 0)
		snprintf(name, XENIDC_ADDRESS_MAX, "same:%s", rest);
	return e;
}

void same_install(void)
{
	if (same.scheme)
		return;
	same = xi_transport_shm;
	same.scheme = "same";
	same.dial = dial;
	same.adopt = adopt;
	same.listen = listen_at;
	domain = *xi_shm_domain;
	domain.region_make = make;
	domain.region_export = export;
	domain.region_import = import;
	domain.region_zero = zero;
	domain.fini = fini;
	xi_transport_add(&same);
}
