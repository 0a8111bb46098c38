/* SPDX-License-Identifier: MIT */
/* Listeners: who may come in, and how much all of them may hold together. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>

#include "address.h"
#include "base/counters.h"
#include "base/cursor.h"
#include "base/log.h"
#include "base/os.h"
#include "engine.h"

/* --- What they hold together */

static void accounts_put(struct xi_accounts *a)
{
	XI_ASSERT(a->users > 1 || (a->channels == 0 && a->bytes == 0));
	XI_ASSERT(a->users > 0);
	if (--a->users == 0)
		xi_os->free(a);
}

void xi_accounts_connected(struct xi_conn *conn)
{
	if (!conn->counted_connecting)
		return;
	XI_ASSERT(conn->accounts && conn->accounts->connecting > 0);
	conn->accounts->connecting--;
	conn->counted_connecting = false;
}

void xi_accounts_release(struct xi_conn *conn)
{
	struct xi_accounts *a = conn->accounts;

	XI_ASSERT(!conn->accounted || a->channels > 0);
	if (!a)
		return;
	xi_accounts_connected(conn);
	XI_ASSERT(a->bytes >= conn->accounted);
	a->bytes -= conn->accounted;
	if (conn->accounted)
		a->channels--;
	conn->accounts = NULL;
	accounts_put(a);
}

/* --- Who comes in */

void *xi_listener_priv(struct xi_listener *handle)
{
	XI_DASSERT(handle);
	return ((xenidc_listener *)(void *)handle)->priv;
}

xenidc_loop *xi_listener_loop(struct xi_listener *handle)
{
	XI_DASSERT(handle);
	return ((xenidc_listener *)(void *)handle)->loop;
}

bool xi_listener_incoming(struct xi_listener *handle, void *arg)
{
	xenidc_listener *listener = (xenidc_listener *)(void *)handle;
	struct xi_conn *conn;

	XI_ASSERT(listener->accounts && listener->t);
	if (listener->accounts->connecting >= listener->options.half_open_max) {
		xi_log(LOG_WARNING, "%s: %u connects are in progress already, one more was dropped", listener->name,
		       listener->accounts->connecting);
		return false;
	}
	if (xi_conn_new(listener->loop, listener->t, &conn))
		return false;
	conn->listener = listener;
	conn->accounts = listener->accounts;
	conn->accounts->users++;
	conn->accounts->connecting++;
	conn->counted_connecting = true;
	conn->phase = XI_PHASE_WAITING;
	conn->times = listener->options.channel.times;
	xi_times_complete(&conn->times);
	conn->limits.incarnation = 1;
	conn->limits.peer.size = sizeof(conn->limits.peer);
	snprintf(conn->limits.peer.transport, sizeof(conn->limits.peer.transport), "%s", listener->t->scheme);
	xi_list_append(&listener->half_open, &conn->half_open);
	listener->t->adopt(conn, arg);
	xi_handshake_start(conn);
	return true;
}

void xi_listener_forget(struct xi_conn *conn)
{
	XI_ASSERT(!xi_list_empty(&conn->half_open));
	XI_ASSERT(conn->listener && !xi_list_empty(&conn->half_open));
	xi_list_remove(&conn->half_open);
	conn->listener = NULL;
}

static int reject(struct xenidc_accept *accept, enum xenidc_reason reason, const char *text)
{
	XI_ASSERT(text && reason != XENIDC_REASON_NONE);
	snprintf(accept->refuse_text, sizeof(accept->refuse_text), "%s", text);
	return (int)reason;
}

static int reject_service(const xenidc_listener *listener, const struct xenidc_peer *peer, struct xenidc_accept *accept)
{
	char text[sizeof(accept->refuse_text)];

	XI_ASSERT(listener->service[0]);
	if (peer->service[0])
		snprintf(text, sizeof(text), "\"%.60s\" was asked for, \"%.60s\" is what is served", peer->service,
			 listener->service);
	else
		snprintf(text, sizeof(text), "no service was asked for, \"%.60s\" is what is served",
			 listener->service);
	return reject(accept, XENIDC_REASON_SERVICE, text);
}

/* The client's own word. */
static int ask_hook(xenidc_listener *listener, struct xi_conn *conn, const struct xi_hello *hello,
		    struct xenidc_accept *accept)
{
	struct xenidc_peer *peer = &conn->limits.peer;
	int e;

	XI_ASSERT(listener->options.accept && !conn->channel);
	peer->auth = hello->auth;
	peer->auth_len = hello->auth_len;
	xi_loop_enter_handler(listener->loop);
	e = listener->options.accept(listener, peer, accept);
	xi_loop_leave_handler(listener->loop);
	peer->auth = NULL;
	peer->auth_len = 0;
	if (!e)
		return 0;
	if (!accept->refuse_text[0])
		snprintf(accept->refuse_text, sizeof(accept->refuse_text), "the access rules there say no");
	return accept->refuse_reason == XENIDC_REASON_NONE ? XENIDC_REASON_DENIED : (int)accept->refuse_reason;
}

/* Does it fit into what the listener may hold? Then it is charged. */
static int charge(xenidc_listener *listener, struct xi_conn *conn, const struct xi_hello *hello,
		  struct xenidc_accept *accept)
{
	struct xenidc_budget theirs = xi_budget_mirror(&hello->budget);
	struct xenidc_budget budget = xi_budget_meet(&accept->channel.budget, &theirs);
	uint64_t bytes = xenidc_budget_bytes(&budget), quarantined = 0;
	uint32_t regions = 0;

	XI_ASSERT(conn->accounted == 0 && bytes > 0);
	if (listener->t->quarantine)
		listener->t->quarantine(listener->accounts->owner, &quarantined, &regions);
	if (listener->accounts->bytes + quarantined + bytes > listener->options.bytes_max)
		return reject(accept, XENIDC_REASON_LIMIT, "all memory that is set aside for channels is in use");
	conn->accounted = bytes;
	listener->accounts->bytes += bytes;
	listener->accounts->channels++;
	return 0;
}

int xi_listener_admit(struct xi_conn *conn, const struct xi_hello *hello, struct xenidc_accept *accept)
{
	xenidc_listener *listener = conn->listener;
	struct xenidc_error err = { 0 };

	XI_ASSERT(conn->phase == XI_PHASE_ANSWERED && !conn->channel && hello->kind == XI_HELLO_CONNECT);
	XI_ASSERT(listener);
	snprintf(conn->limits.peer.service, sizeof(conn->limits.peer.service), "%s", hello->service);
	xi_text_printable(conn->limits.peer.service);
	accept->channel = listener->options.channel;
	if (listener->service[0] && strcmp(listener->service, hello->service) != 0)
		return reject_service(listener, &conn->limits.peer, accept);
	if (listener->accounts->channels >= listener->options.channels_max)
		return reject(accept, XENIDC_REASON_LIMIT, "as many channels as allowed are connected");
	if (listener->options.accept) {
		int reason = ask_hook(listener, conn, hello, accept);
		if (reason)
			return reason;
	}
	if (xenidc_budget_complete(&accept->channel.budget, &err))
		return reject(accept, XENIDC_REASON_BUDGET, "the budget set up there is not possible");
	return charge(listener, conn, hello, accept);
}

/* --- The listener itself */

static void listener_destroy(xenidc_listener *listener)
{
	XI_ASSERT(listener->accounts && listener->priv);
	XI_ASSERT(!xi_loop_in_handler(listener->loop));
	xi_loop_member_remove(&listener->member);
	xi_task_cancel(&listener->task);
	while (!xi_list_empty(&listener->half_open)) {
		struct xi_conn *conn = XI_CONTAINER(listener->half_open.next, struct xi_conn, half_open);
		xi_listener_forget(conn);
		if (conn->phase < XI_PHASE_ENDING)
			conn->t->close(conn);
		xi_conn_free(conn);
	}
	if (listener->listening)
		listener->t->unlisten((struct xi_listener *)(void *)listener);
	accounts_put(listener->accounts);
	xi_os->free(listener->priv);
	xi_os->free(listener);
	xi_destroyed(XI_OBJECT_LISTENER);
}

static void member_destroy(struct xi_member *m, bool forked)
{
	(void)forked;
	listener_destroy(XI_CONTAINER(m, xenidc_listener, member));
}

static void listener_task(struct xi_task *task)
{
	XI_ASSERT(task->run == listener_task);
	listener_destroy(XI_CONTAINER(task, xenidc_listener, task));
}

void xenidc_listener_free(xenidc_listener *listener)
{
	if (!listener)
		return;
	XI_ASSERT(listener->loop && listener->t);
	/* In a step, its own code may be on the stack. */
	if (xi_loop_in_step(listener->loop))
		xi_loop_defer(listener->loop, &listener->task);
	else
		listener_destroy(listener);
}

static void copy_options(xenidc_listener *listener, const struct xenidc_listener_options *o, const char *service)
{
	struct xenidc_channel_options *c = &listener->options.channel;

	XI_ASSERT(service && o->channel.size == sizeof(o->channel));
	listener->options = *o;
	if (o->service)
		service = o->service;
	snprintf(listener->service, sizeof(listener->service), "%s", service);
	if (c->auth_len <= XI_AUTH_MAX && c->auth)
		memcpy(listener->auth, c->auth, c->auth_len);
	c->auth = listener->auth;
	c->service = NULL;
	if (!o->channels_max)
		listener->options.channels_max = XI_LISTENER_CHANNELS;
	if (!o->half_open_max)
		listener->options.half_open_max = XI_LISTENER_HALF_OPEN;
	if (!o->bytes_max)
		listener->options.bytes_max = XI_LISTENER_BYTES;
}

static int check_options(const struct xenidc_listener_options *o, struct xenidc_error *err)
{
	struct xenidc_budget budget = o->channel.budget;

	if (o->size != sizeof(*o) || o->channel.size != sizeof(o->channel))
		return xi_error(
			err, -EINVAL, XENIDC_REASON_UNSUPPORTED,
			"the listener options, or the channel options in them, do not have the size that this library "
			"knows; set each `size` to its sizeof, and build against the header of the library that runs");
	return xenidc_budget_complete(&budget, err);
}

static int listener_make(xenidc_loop *loop, const struct xi_transport *t, xenidc_listener **ret)
{
	xenidc_listener *l = xi_os->alloc(sizeof(*l));

	XI_ASSERT(t->listener_size > 0 && loop);
	if (!l)
		return -ENOMEM;
	l->priv = xi_os->alloc(t->listener_size);
	l->accounts = xi_os->alloc(sizeof(*l->accounts));
	if (!l->priv || !l->accounts) {
		xi_os->free(l->priv);
		xi_os->free(l->accounts);
		xi_os->free(l);
		return -ENOMEM;
	}
	l->accounts->users = 1;
	l->accounts->owner = xi_owner_new();
	l->loop = loop;
	l->t = t;
	xi_list_init(&l->half_open);
	xi_list_init(&l->member.link);
	xi_task_init(&l->task, listener_task);
	l->member.destroy = member_destroy;
	xi_loop_member_add(loop, &l->member);
	xi_created(XI_OBJECT_LISTENER);
	*ret = l;
	return 0;
}

int xenidc_listener_new(xenidc_loop *loop, const char *address, const struct xenidc_listener_options *options,
			xenidc_listener **ret, struct xenidc_error *err)
{
	char service[XENIDC_SERVICE_MAX + 1];
	const struct xi_transport *t;
	xenidc_listener *l;
	const char *rest;
	int e;

	XI_ASSERT(loop && address && options && ret);
	if (xi_loop_forked(loop))
		return xi_error(err, -ECHILD, XENIDC_REASON_UNSUPPORTED,
				"this process was forked after the loop was made");
	e = check_options(options, err);
	if (!e)
		e = xi_address_parse(address, &t, &rest, service, err);
	if (e)
		return e;
	if (listener_make(loop, t, &l))
		return xi_error(err, -ENOMEM, XENIDC_REASON_RESOURCE, "listening at %s: out of memory", address);
	copy_options(l, options, service);
	e = t->listen((struct xi_listener *)(void *)l, rest, l->name, err);
	if (e) {
		listener_destroy(l);
		return e;
	}
	l->listening = true;
	*ret = l;
	return 0;
}

void *xenidc_listener_user(const xenidc_listener *listener)
{
	XI_ASSERT(listener);
	return listener->options.user;
}

const char *xenidc_listener_address(const xenidc_listener *listener)
{
	XI_ASSERT(listener);
	XI_ASSERT(listener->name[0]);
	return listener->name;
}
