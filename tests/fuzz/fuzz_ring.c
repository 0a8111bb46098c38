/* SPDX-License-Identifier: MIT */
/*
 * A channel over rings in memory that a peer writes whenever it likes: before each access of the library to shared
 * memory (xi_sched_point) a word of the peer's region may change, so that no value can be looked at twice.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "tests/lib/check.h"
#include "transport-local/domain.h"
#include "world.h"

#define REGION_MAX (128u << 10)
#define RING_AT 4096u
#define EVENT_WORD 64u

struct conn {
	struct xi_local local; /* first */
};

static struct {
	struct conn *conn;
	uint8_t *own, *peers; /* the target's region, and ours; each REGION_MAX bytes */
	bool imported, hung_up, ended;
	const struct raw_bytes *hello; /* waits to be handed up */
	uint8_t said;                  /* kind of the target's last connect message */
	uint64_t put, taken;           /* frames */
	uint32_t slot;                 /* of the target's next frame */
	uint32_t seen[1024];           /* counts of the target's slots */
	uint32_t rings;
	/* Changes under the target's hands: one in `every` accesses (0: none), drawn from `state`. */
	uint32_t every, state;
	struct raw_layout layout;
} m;

/* --- Changes at any time */

static uint32_t draw(void)
{
	m.state = m.state * 1664525u + 1013904223u;
	return m.state >> 8;
}

static void poke(uint32_t at, uint32_t value)
{
	if (m.ended || at > m.layout.bytes - 4)
		return;
	memcpy(m.peers + at, &value, 4);
}

static void change_something(void)
{
	uint32_t where, value;

	if (!m.every || draw() % m.every)
		return;
	/* Mostly where it hurts: the slot that is read next, its words, the control words. */
	switch (draw() % 8) {
	case 0:
		where = draw() % 256;
		break;
	case 1:
		where = draw() % (m.layout.bytes / 4) * 4;
		break;
	default:
		where = RING_AT + (uint32_t)(m.put - draw() % 2) % m.layout.frames * m.layout.stride + draw() % 48;
	}
	value = draw() % 4 ? draw() % 512 : draw() << 12;
	poke(where, value);
}

/* --- The domain */

static int region_make(struct xi_local *local, uint64_t bytes, uint8_t **ret_base, struct xenidc_error *err)
{
	(void)local;
	(void)err;
	CHECK(bytes <= REGION_MAX);
	memset(m.own, 0, bytes);
	*ret_base = m.own;
	return 0;
}

static void region_export(struct xi_local *local, struct xi_writer *w)
{
	(void)local;
	(void)w;
}

static int region_import(struct xi_local *local, struct xi_reader *r, uint64_t bytes, const uint8_t **ret_base,
			 struct xenidc_error *err)
{
	(void)local;
	(void)r;
	(void)err;
	CHECK_EQ(bytes, m.layout.bytes);
	m.imported = true;
	*ret_base = m.peers;
	return 0;
}

static void region_zero(struct xi_local *local)
{
	(void)local;
	m.ended = true; /* nothing that we write is seen any more */
	memset(m.peers, 0, REGION_MAX);
}

static void wake(struct xi_local *local, uint32_t *word)
{
	(void)local;
	CHECK((uint8_t *)word >= m.own + RING_AT && (uint8_t *)word < m.own + REGION_MAX);
}

static void ring(struct xi_local *local)
{
	(void)local;
}

static void hang_up(struct xi_local *local)
{
	(void)local;
	m.hung_up = true;
}

static void over(struct xi_local *local, enum xi_local_end how)
{
	xi_conn_lost(local->conn, how == XI_LOCAL_DIED ? XENIDC_REASON_PEER_DIED : XENIDC_REASON_LOST, -ECONNRESET,
		     "the peer is gone");
}

static void domain_fini(struct xi_local *local)
{
	(void)local;
	m.conn = NULL;
}

static const struct xi_domain domain = { region_make, region_export, region_import, region_zero, wake,
					 ring,        hang_up,       over,          domain_fini };

/* --- The transport */

static int check(const char *rest, char *service, struct xenidc_error *err)
{
	(void)rest;
	(void)err;
	service[0] = '\0';
	return 0;
}

static int listen_at(struct xi_listener *listener, const char *rest, char *name, struct xenidc_error *err)
{
	(void)rest;
	(void)err;
	world.listening = listener;
	strcpy(name, "fuzz:");
	return 0;
}

static void unlisten(struct xi_listener *listener)
{
	(void)listener;
}

static int dial(struct xi_conn *conn, const char *rest, struct xenidc_error *err)
{
	(void)conn;
	(void)rest;
	(void)err;
	return -EOPNOTSUPP;
}

static void adopt(struct xi_conn *conn, void *arg)
{
	struct conn *c = xi_conn_priv(conn);

	(void)arg;
	m.conn = c;
	xi_local_start(&c->local, conn, &domain);
}

static void identify(struct xi_conn *conn, struct xenidc_peer *peer)
{
	(void)conn;
	strcpy(peer->address, "fuzz");
}

static void hello(struct xi_conn *conn, const void *bytes, uint32_t length)
{
	(void)conn;
	CHECK(length >= 32);
	m.said = ((const uint8_t *)bytes)[4];
}

static unsigned process(struct xi_conn *conn, unsigned budget)
{
	const struct raw_bytes *bytes = m.hello;

	if (bytes) {
		m.hello = NULL;
		xi_conn_hello(conn, bytes->b, bytes->n);
		return 1;
	}
	while (m.rings) {
		m.rings--;
		xi_local_rang(&m.conn->local);
	}
	return xi_local_process(conn, budget);
}

static void quarantine(const void *owner, uint64_t *bytes, uint32_t *regions)
{
	(void)owner;
	*bytes = 0;
	*regions = 0;
}

static void diagnose(xenidc_diagnose_line *line, void *user)
{
	(void)line;
	(void)user;
}

static const struct xi_transport transport = {
	.version = XI_TRANSPORT_VERSION,
	.scheme = "fuzz",
	.caps = XI_LOCAL_CAPS | XI_CAP_PEER_DEATH,
	.conn_size = sizeof(struct conn),
	.listener_size = 1,
	.check = check,
	.listen = listen_at,
	.unlisten = unlisten,
	.dial = dial,
	.adopt = adopt,
	.identify = identify,
	.hello = hello,
	XI_LOCAL_OPS,
	.quarantine = quarantine,
	.diagnose = diagnose,
};

/* process() of XI_LOCAL_OPS is ours here. */
static struct xi_transport with_process;

/* --- The peer */

static void reset(void)
{
	uint32_t header[2] = { XI_RING_MAGIC, XI_RING_FORMAT };

	m.imported = m.hung_up = m.ended = false;
	m.hello = NULL;
	m.said = 0;
	m.put = m.taken = m.slot = m.rings = 0;
	memset(m.seen, 0, sizeof(m.seen));
	m.every = input_8(world.in) % 32;
	m.state = input_16(world.in);
	m.layout = raw_layout(&world.limits);
	CHECK(m.layout.bytes <= REGION_MAX && m.layout.frames <= sizeof(m.seen) / sizeof(m.seen[0]));
	memset(m.peers, 0, REGION_MAX);
	memcpy(m.peers, header, sizeof(header));
}

static void arrive(void)
{
	CHECK(xi_listener_incoming(world.listening, NULL));
}

static void say_hello(const struct raw_bytes *bytes)
{
	m.hello = bytes;
}

static void say_frame(const struct raw_bytes *bytes)
{
	uint32_t at = RING_AT + (uint32_t)(m.put % m.layout.frames) * m.layout.stride;
	uint32_t n = bytes->n < m.layout.stride - 8 ? bytes->n : m.layout.stride - 8;
	uint64_t word = m.put / m.layout.frames + 1;

	if (m.ended)
		return;
	m.put++;
	word |= (m.put % m.layout.frames) << 32 | (uint64_t)(uint16_t)m.taken << 48;
	memcpy(m.peers + at + 8, bytes->b, n);
	memcpy(m.peers + at, &word, 8);
}

/* One word of the region: u16 and a bit of offset, u32 of value. Or a ring of the doorbell. */
static void say_bytes(const uint8_t *bytes, uint32_t length)
{
	if (length < 7) {
		m.rings += length;
		return;
	}
	poke((raw_get16(bytes) | (uint32_t)(bytes[2] & 1) << 16) & ~3u, raw_get32(bytes + 3));
}

static void end(void)
{
	m.every = 0;
	m.hello = NULL;
	if (m.conn)
		xi_local_gone(&m.conn->local, XI_LOCAL_DIED);
}

static bool heard_hello(uint8_t kind)
{
	return m.said == kind;
}

static void listen_to(void)
{
	while (m.conn && m.imported && m.taken < 100000) {
		const uint8_t *slot = m.own + RING_AT + m.slot * m.layout.stride;
		if (raw_get32(slot) != m.seen[m.slot] + 1)
			return;
		m.taken++;
		m.seen[m.slot]++;
		m.slot = raw_get16(slot + 4);
		CHECK(m.slot < m.layout.frames);
		world_heard(slot + 8);
	}
}

static const struct world_peer peer = {
	.transport = &with_process,
	.reset = reset,
	.arrive = arrive,
	.hello = say_hello,
	.frame = say_frame,
	.bytes = say_bytes,
	.end = end,
	.heard_hello = heard_hello,
	.listen = listen_to,
};

static uint8_t *map(void)
{
	void *p = mmap(NULL, REGION_MAX, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(p != MAP_FAILED);
	return p;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!m.own) {
		m.own = map();
		m.peers = map();
		with_process = transport;
		with_process.process = process;
		xi_sched_point = change_something;
	}
	world_start(&peer);
	world_run(data, size);
	return 0;
}
