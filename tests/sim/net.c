/* SPDX-License-Identifier: MIT */
/* Names that somebody listens at, and links between two ends. A link outlives the process of either end. */
#include "sim.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "xenidc-core/base/assert.h"
#include "xenidc-core/base/log.h"

#define BACKLOG 1024

struct sim_name {
	struct xi_list list;
	const char *scheme;
	char name[XENIDC_SERVICE_MAX + 1];
	struct sim_process *process;
	int fd;
	struct sim_link *waiting[BACKLOG];
	unsigned count;
};

static struct {
	struct xi_list names, links;
	uint64_t stalled_until[SIM_PROCESSES][SIM_PROCESSES];
} net;

/* --- Names */
static bool name_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
	       c == '-';
}

int sim_name_check(const char *rest, char *service, struct xenidc_error *err)
{
	size_t length = strcspn(rest, "/");
	const char *after = rest[length] ? rest + length + 1 : "";

	service[0] = 0;
	if (length > XENIDC_SERVICE_MAX || strlen(after) > XENIDC_SERVICE_MAX)
		return xi_error(err, -ENAMETOOLONG, XENIDC_REASON_ADDRESS,
				"the name or service in \"%.60s\" is longer than %d characters; shorten it", rest,
				XENIDC_SERVICE_MAX);
	for (size_t i = 0; i < length; i++)
		if (!name_char(rest[i]))
			length = 0;
	if (!length || rest[0] == '.' || (rest[length] && !after[0]))
		return xi_error(err, -EINVAL, XENIDC_REASON_ADDRESS,
				"\"%.60s\" is no name; use NAME or NAME/SERVICE, of letters and digits", rest);
	strcpy(service, after);
	return 0;
}

static void copy_name(char *to, const char *rest)
{
	size_t length = strcspn(rest, "/");

	XI_ASSERT(length <= XENIDC_SERVICE_MAX);
	memcpy(to, rest, length);
	to[length] = 0;
}

static struct sim_name *find_name(const char *scheme, const char *name)
{
	for (struct xi_list *l = net.names.next; l != &net.names; l = l->next) {
		struct sim_name *n = XI_CONTAINER(l, struct sim_name, list);
		if (!strcmp(n->scheme, scheme) && !strcmp(n->name, name))
			return n;
	}
	return NULL;
}

struct sim_name *sim_name_new(const char *scheme, const char *name, xenidc_loop *loop)
{
	char plain[XENIDC_SERVICE_MAX + 1];

	copy_name(plain, name);
	if (find_name(scheme, plain))
		return NULL;
	struct sim_name *n = calloc(1, sizeof(*n));
	XI_ASSERT(n);
	n->scheme = scheme;
	strcpy(n->name, plain);
	n->process = sim_process_of(loop);
	n->fd = sim_fd_new();
	xi_list_append(&net.names, &n->list);
	return n;
}

void sim_name_free(struct sim_name *name)
{
	for (unsigned i = 0; i < name->count; i++)
		sim_end_close(&name->waiting[i]->end[1]);
	xi_list_remove(&name->list);
	sim_fd_free(name->fd);
	free(name);
}

int sim_name_fd(const struct sim_name *name)
{
	return name->fd;
}

struct sim_link *sim_name_accept(struct sim_name *name)
{
	if (!name->count)
		return NULL;
	struct sim_link *link = name->waiting[0];
	memmove(name->waiting, name->waiting + 1, --name->count * sizeof(link));
	sim_fd_set(name->fd, EPOLLIN, name->count > 0);
	link->end[1].process = name->process;
	return link;
}

/* --- Links */
struct sim_end *sim_end_other(struct sim_end *end)
{
	return &end->link->end[end == &end->link->end[0]];
}

uint64_t sim_end_stalled(struct sim_end *from)
{
	const struct sim_process *a = from->process, *b = sim_end_other(from)->process;
	uint64_t until = a && b ? net.stalled_until[a->index][b->index] : 0;

	return until > sim_now() ? until : 0;
}

uint64_t sim_end_due(struct sim_end *from)
{
	uint64_t delay = sim_options()->delay_ns, stalled = sim_end_stalled(from);
	uint64_t due = sim_now() + (delay ? sim_between(0, delay) : 0);

	return due > stalled ? due : stalled;
}

static void tell(struct sim_end *end)
{
	if (!end->closed && end->process && end->link->arrived)
		end->link->arrived(end);
}

static void arrival(struct sim_event *event)
{
	struct sim_pipe *pipe = XI_CONTAINER(event, struct sim_pipe, arrival);
	struct sim_end *end = XI_CONTAINER(pipe, struct sim_end, in);
	struct sim_end *from = sim_end_other(end);
	uint32_t more = pipe->used - pipe->visible;

	if (sim_end_stalled(from)) {
		sim_event_start(event, sim_end_stalled(from), arrival);
		return;
	}
	if (more > 1 && sim_options()->delay_ns && sim_chance(2))
		more = 1 + sim_below(more);
	pipe->visible += more;
	if (pipe->visible < pipe->used)
		sim_event_start(event, sim_end_due(from), arrival);
	else
		pipe->ended = pipe->ending;
	tell(end);
}

/* Something was put, or the end declared: let it arrive. */
static void under_way(struct sim_end *end)
{
	if (end->in.arrival.place)
		return;
	uint64_t due = sim_end_due(sim_end_other(end));
	if (due > sim_now())
		sim_event_start(&end->in.arrival, due, arrival);
	else
		arrival(&end->in.arrival);
}

uint32_t sim_end_room(struct sim_end *from)
{
	const struct sim_pipe *pipe = &sim_end_other(from)->in;

	return pipe->size - pipe->used;
}

void sim_end_put(struct sim_end *from, const void *bytes, uint32_t length)
{
	struct sim_end *to = sim_end_other(from);
	struct sim_pipe *pipe = &to->in;

	XI_ASSERT(length <= sim_end_room(from) && !pipe->ending);
	if (to->closed || from->link->broken)
		return;
	if (!pipe->used)
		pipe->head = 0;
	uint32_t at = (pipe->head + pipe->used) % pipe->size;
	uint32_t first = length < pipe->size - at ? length : pipe->size - at;
	memcpy(pipe->bytes + at, bytes, first);
	memcpy(pipe->bytes, (const uint8_t *)bytes + first, length - first);
	pipe->used += length;
	under_way(to);
}

void sim_end_peek(const struct sim_end *end, uint32_t at, void *to, uint32_t length)
{
	const struct sim_pipe *pipe = &end->in;

	XI_ASSERT(at + length <= pipe->visible);
	at = (pipe->head + at) % pipe->size;
	uint32_t first = length < pipe->size - at ? length : pipe->size - at;
	memcpy(to, pipe->bytes + at, first);
	memcpy((uint8_t *)to + first, pipe->bytes, length - first);
}

void sim_end_take(struct sim_end *end, uint32_t length)
{
	struct sim_pipe *pipe = &end->in;

	XI_ASSERT(length <= pipe->visible);
	pipe->head = (pipe->head + length) % pipe->size;
	pipe->used -= length;
	pipe->visible -= length;
}

bool sim_end_over(const struct sim_end *end)
{
	return !end->in.visible && (end->in.ended || end->link->broken);
}

void sim_end_refresh(struct sim_end *end)
{
	const struct sim_link *link = end->link;
	bool there = link->connected || end == &link->end[1];

	sim_fd_set(end->fd, EPOLLIN, link->refused || (there && (end->in.visible || sim_end_over(end))));
	sim_fd_set(end->fd, EPOLLOUT, there && (sim_end_room(end) || link->broken));
}

static void free_link(struct sim_link *link)
{
	sim_event_stop(&link->connect);
	for (int i = 0; i < 2; i++) {
		sim_event_stop(&link->end[i].in.arrival);
		sim_event_stop(&link->end[i].bell);
		sim_event_stop(&link->end[i].work);
		free(link->end[i].in.bytes);
		sim_fd_free(link->end[i].fd);
	}
	xi_list_remove(&link->list);
	free(link);
}

static void end_pipe(struct sim_end *from)
{
	struct sim_end *to = sim_end_other(from);

	if (to->in.ending || from->link->silent)
		return;
	to->in.ending = true;
	under_way(to);
}

bool sim_end_close(struct sim_end *end)
{
	struct sim_link *link = end->link;

	XI_ASSERT(!end->closed);
	if (link->closing)
		link->closing(end);
	end->closed = true;
	end->user = NULL;
	sim_event_stop(&end->bell);
	sim_event_stop(&end->work);
	end->in.used = end->in.visible = 0;
	if (!link->connected && !link->refused)
		link->end[1].closed = true; /* given up before anybody was asked */
	if (!sim_end_other(end)->closed) {
		end_pipe(end);
		return false;
	}
	free_link(link);
	return true;
}

void sim_link_break(struct sim_link *link)
{
	if (link->broken)
		return;
	sim_trace("a link at %s breaks", link->name);
	sim_note(0x6272656b);
	link->broken = true;
	for (int i = 0; i < 2; i++) {
		struct sim_pipe *pipe = &link->end[i].in;
		/* What has arrived may be lost as well. */
		pipe->used = pipe->visible;
		sim_event_stop(&pipe->arrival);
	}
	for (int i = 0; i < 2; i++)
		tell(&link->end[i]);
}

static void connect_now(struct sim_event *event)
{
	struct sim_link *link = XI_CONTAINER(event, struct sim_link, connect);
	struct sim_name *name = find_name(link->scheme, link->name);

	if (name && name->count < BACKLOG) {
		uint64_t stalled = net.stalled_until[link->end[0].process->index][name->process->index];
		if (stalled > sim_now()) {
			sim_event_start(event, stalled, connect_now);
			return;
		}
		link->connected = true;
		name->waiting[name->count++] = link;
		sim_fd_set(name->fd, EPOLLIN, true);
	} else {
		link->refused = true;
		link->end[1].closed = true;
	}
	tell(&link->end[0]);
}

struct sim_link *sim_link_dial(const char *scheme, const char *rest, xenidc_loop *loop, uint32_t bytes)
{
	struct sim_link *link = calloc(1, sizeof(*link));

	XI_ASSERT(link);
	link->scheme = scheme;
	copy_name(link->name, rest);
	for (int i = 0; i < 2; i++) {
		struct sim_end *end = &link->end[i];
		end->link = link;
		end->fd = sim_fd_new();
		end->in.size = bytes;
		end->in.bytes = malloc(bytes);
		XI_ASSERT(end->in.bytes);
	}
	link->end[0].process = sim_process_of(loop);
	xi_list_append(&net.links, &link->list);
	sim_event_start(&link->connect, sim_end_due(&link->end[0]), connect_now);
	return link;
}

struct sim_link *sim_link_next(struct sim_link *link)
{
	struct xi_list *l = link ? link->list.next : net.links.next;

	return l == &net.links ? NULL : XI_CONTAINER(l, struct sim_link, list);
}

/* --- Faults */
static bool between(const struct sim_end *from, const struct sim_process *a, const struct sim_process *b)
{
	const struct sim_end *to = &from->link->end[from == &from->link->end[0]];

	return from->process && to->process && (!a || from->process == a) && (!b || to->process == b);
}

void sim_cut(struct sim_process *a, struct sim_process *b)
{
	for (struct sim_link *link = sim_link_next(NULL), *next; link; link = next) {
		next = sim_link_next(link);
		if (between(&link->end[0], a, b) || between(&link->end[1], a, b))
			sim_link_break(link);
	}
}

void sim_stall(struct sim_process *from, struct sim_process *to, uint64_t ns)
{
	sim_trace("stall from %s to %s for %llu ms", from ? from->name : "all", to ? to->name : "all",
		  (unsigned long long)(ns / SIM_MS));
	for (unsigned i = 0; i < SIM_PROCESSES; i++)
		for (unsigned k = 0; k < SIM_PROCESSES; k++)
			if ((!from || from->index == i) && (!to || to->index == k))
				net.stalled_until[i][k] = sim_now() + ns;
}

void sim_net_died(struct sim_process *process)
{
	for (struct xi_list *l = net.names.next, *next; l != &net.names; l = next) {
		struct sim_name *name = XI_CONTAINER(l, struct sim_name, list);
		next = l->next;
		if (name->process == process)
			sim_name_free(name);
	}
	for (struct sim_link *link = sim_link_next(NULL), *next; link; link = next) {
		next = sim_link_next(link);
		for (int i = 0; i < 2; i++) {
			struct sim_end *end = &link->end[i];
			if (end->process != process || end->closed)
				continue;
			end->dead = true;
			if (sim_end_close(end))
				break;
		}
	}
}

void sim_net_begin(void)
{
	memset(&net, 0, sizeof(net));
	xi_list_init(&net.names);
	xi_list_init(&net.links);
}

void sim_net_end(void)
{
	XI_ASSERT(xi_list_empty(&net.names));
	XI_ASSERT(xi_list_empty(&net.links));
}
