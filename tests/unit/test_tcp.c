/* SPDX-License-Identifier: MIT */
/* TCP with the real core on this machine's loopback: addresses, dialling, listening, the end, what can go wrong. */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <xenidc/xenidc.h>

#include "tests/lib/check.h"
#include "tests/lib/fault_os.h"
#include "xenidc-core/base/counters.h"
#include "xenidc-core/base/os.h"
#include "xenidc-core/base/times.h"

/* --- a client and a server on one loop */

struct end {
	xenidc_channel *channel;
	unsigned connected, idle, messages;
	struct xenidc_error why;
	struct xenidc_limits limits;
};

static xenidc_loop *loop;
static xenidc_listener *listener;
static struct end client, server;
static const char *message_text = "hello";
static bool small_close; /* few but large messages, and no patience at the end */

static struct end *end_of(xenidc_channel *channel)
{
	return xenidc_channel_user(channel);
}

static void on_connected(xenidc_channel *channel, const struct xenidc_limits *limits)
{
	end_of(channel)->connected++;
	end_of(channel)->limits = *limits;
}

static void on_message(xenidc_channel *channel, const void *payload, uint32_t length)
{
	if (message_text) {
		CHECK_EQ(length, strlen(message_text));
		CHECK_MEM(payload, message_text, length);
	}
	end_of(channel)->messages++;
}

static void on_idle(xenidc_channel *channel, const struct xenidc_error *why)
{
	end_of(channel)->idle++;
	end_of(channel)->why = *why;
}

static void on_accepted(xenidc_listener *l, xenidc_channel *channel)
{
	CHECK(l == listener);
	server.channel = channel;
}

static struct xenidc_channel_options options_for(struct end *end)
{
	struct xenidc_channel_options o = {
		.size = sizeof(struct xenidc_channel_options),
		.handlers = { .connected = on_connected, .message = on_message, .idle = on_idle },
		.user = end,
		.times = { .connect_ns = 2 * XI_SECOND },
	};

	if (small_close) {
		o.budget.size = sizeof(o.budget);
		o.budget.payload = 16384;
		o.budget.messages_out = o.budget.messages_in = 8;
		o.times.close_ns = 50 * XI_MS;
	}
	return o;
}

static void open_loop(void)
{
	struct xenidc_loop_options options = { .size = sizeof(options), .wait = XENIDC_WAIT_BLOCK };

	memset(&client, 0, sizeof(client));
	memset(&server, 0, sizeof(server));
	CHECK_EQ(xenidc_loop_new(&options, &loop), 0);
}

static int try_listen(const char *address, struct xenidc_error *err)
{
	struct xenidc_listener_options options = { .size = sizeof(options),
						   .channel = options_for(&server),
						   .accepted = on_accepted };

	return xenidc_listener_new(loop, address, &options, &listener, err);
}

static void start_listening(const char *address)
{
	struct xenidc_error err = { 0 };

	if (try_listen(address, &err))
		check_failed(__FILE__, __LINE__, "%s: %s", address, err.text);
}

static void make_client(void)
{
	struct xenidc_channel_options options = options_for(&client);

	if (!client.channel)
		CHECK_EQ(xenidc_channel_new(loop, &options, &client.channel, NULL), 0);
}

static int try_connect(const char *address, struct xenidc_error *err)
{
	make_client();
	return xenidc_channel_connect(client.channel, address, err);
}

static void start_connecting(const char *address)
{
	struct xenidc_error err = { 0 };

	if (try_connect(address, &err))
		check_failed(__FILE__, __LINE__, "%s: %s", address, err.text);
}

#define UNTIL(condition)                                                                                               \
	do                                                                                                             \
		CHECK_OP(xenidc_loop_step(loop, -1), >=, 0);                                                           \
	while (!(condition))

static void close_loop(void)
{
	if (listener)
		xenidc_listener_free(listener);
	listener = NULL;
	xenidc_channel_free(client.channel);
	xenidc_channel_free(server.channel);
	xenidc_loop_free(loop);
	for (int i = 0; i < XI_OBJECT_KINDS; i++)
		if (xi_alive((enum xi_object)i))
			check_failed(__FILE__, __LINE__, "%d of %s left", (int)xi_alive((enum xi_object)i),
				     xi_object_name((enum xi_object)i));
}

/* The usual: both connected, at `address` as the listener hands it out. */
static void open_pair(const char *address)
{
	open_loop();
	start_listening(address);
	start_connecting(xenidc_listener_address(listener));
	UNTIL(client.connected && server.connected);
}

static unsigned port_of(const char *address)
{
	const char *colon = strrchr(address, ':');

	CHECK(colon != NULL);
	return (unsigned)strtoul(colon + 1, NULL, 10);
}

static bool have_six(void)
{
	struct sockaddr_in6 six = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	int fd = socket(AF_INET6, SOCK_STREAM, 0);
	bool have = fd >= 0 && bind(fd, (struct sockaddr *)&six, sizeof(six)) == 0;

	if (fd >= 0)
		close(fd);
	return have;
}

/* A port of 127.0.0.`last` where nobody answers, be it ever so long: its queue of connections is full. */
static int full_fds[8];
static uint16_t open_full_port(uint8_t last, uint16_t port)
{
	struct sockaddr_in at = { .sin_family = AF_INET,
				  .sin_port = htons(port),
				  .sin_addr.s_addr = htonl(0x7f000000u | last) };
	socklen_t length = sizeof(at);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&at, sizeof(at)) == 0 && listen(fd, 0) == 0);
	CHECK_EQ(getsockname(fd, (struct sockaddr *)&at, &length), 0);
	full_fds[0] = fd;
	for (int i = 1; i < 8; i++) {
		full_fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
		CHECK(full_fds[i] >= 0);
		(void)connect(full_fds[i], (struct sockaddr *)&at, sizeof(at));
	}
	return ntohs(at.sin_port);
}

static void close_full_port(void)
{
	for (int i = 0; i < 8; i++)
		close(full_fds[i]);
}

/* --- a resolver that says what a test wants */

static struct xi_os fake_os;
static const struct xi_os *os_before;
static uint8_t fake_hosts[4]; /* 127.0.0.N each */
static unsigned fake_count;
static int fake_error;

static int fake_getaddrinfo(const char *host, const char *port, int flags, struct addrinfo **ret)
{
	struct addrinfo *list = NULL;

	if (strcmp(host, "the-host.test") != 0)
		return os_before->getaddrinfo(host, port, flags, ret);
	for (unsigned i = fake_count; i-- > 0;) {
		struct addrinfo *a = calloc(1, sizeof(*a) + sizeof(struct sockaddr_in));
		CHECK(a != NULL);
		struct sockaddr_in *at = (struct sockaddr_in *)(void *)(a + 1);
		at->sin_family = AF_INET;
		at->sin_addr.s_addr = htonl(0x7f000000u | fake_hosts[i]);
		a->ai_family = AF_INET;
		a->ai_addr = (struct sockaddr *)at;
		a->ai_addrlen = sizeof(*at);
		a->ai_next = list;
		list = a;
	}
	*ret = list;
	return fake_error;
}

static void fake_freeaddrinfo(struct addrinfo *list)
{
	while (list) {
		struct addrinfo *next = list->ai_next;
		if (list->ai_addr != (struct sockaddr *)(void *)(list + 1)) {
			os_before->freeaddrinfo(list);
			return;
		}
		free(list);
		list = next;
	}
}

static void fake_install(void)
{
	os_before = xi_os;
	fake_os = *xi_os;
	fake_os.getaddrinfo = fake_getaddrinfo;
	fake_os.freeaddrinfo = fake_freeaddrinfo;
	fake_count = 0;
	fake_error = 0;
	xi_os = &fake_os;
}

static void fake_remove(void)
{
	xi_os = os_before;
}

/* --- addresses */

static void test_addresses(void)
{
	static const char *const good[] = {
		"tcp:",          "tcp::0",           "tcp::47615",      "tcp:*",
		"tcp:*:0/usb",   "tcp:localhost",    "tcp:localhost:1", "tcp:a-b.c_d.example.:65535/service-1",
		"tcp:192.0.2.1", "tcp:[::1]",        "tcp:[::1]:80/x",  "tcp:[fe80::1%eth0]:80",
		"tcp:/x",        "tcp:3com.example",
	};
	static const struct {
		const char *address, *says;
		int code;
	} bad[] = {
		{ "tcp:host:", "its port has to be a number", -EINVAL },
		{ "tcp:host:65536", "its port has to be a number", -EINVAL },
		{ "tcp:host:123456", "its port has to be a number", -EINVAL },
		{ "tcp:host:12a", "its port has to be a number", -EINVAL },
		{ "tcp:host:-1", "its port has to be a number", -EINVAL },
		{ "tcp:::1", "brackets", -EINVAL },
		{ "tcp:fe80::1:80", "brackets", -EINVAL },
		{ "tcp:[::1", "never closed", -EINVAL },
		{ "tcp:[::1]80", "only a port may follow", -EINVAL },
		{ "tcp:[host]:80", "not an IPv6 address", -EINVAL },
		{ "tcp:[]:80", "not an IPv6 address", -EINVAL },
		{ "tcp:host/", "no service follows", -EINVAL },
		{ "tcp:host/a b", "blank", -EINVAL },
		{ "tcp:host..name", "dot", -EINVAL },
		{ "tcp:.host", "dot", -EINVAL },
		{ "tcp:-host", "cannot have", -EINVAL },
		{ "tcp:ho st", "cannot have", -EINVAL },
		{ "tcp:h\xc3\xb6st", "cannot have", -EINVAL },
		{ "tcp:300.1.1.1", "neither a name nor an IPv4 address", -EINVAL },
		{ "tcp:1.2.3", "neither a name nor an IPv4 address", -EINVAL },
		{ "tcp:host/1234567890123456789012345678901234567890123456789012345678901234x", "longer than 64",
		  -ENAMETOOLONG },
		{ "tcp:a1234567890123456789012345678901234567890123456789012345678901234.x", "longer than 63",
		  -EINVAL },
	};
	char longest[XENIDC_ADDRESS_MAX];

	for (unsigned i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		struct xenidc_error err = { 0 };
		if (xenidc_address_check(good[i], &err))
			check_failed(__FILE__, __LINE__, "%s: %s", good[i], err.text);
	}
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct xenidc_error err = { 0 };
		CHECK_EQ(xenidc_address_check(bad[i].address, &err), bad[i].code);
		CHECK_EQ(err.reason, XENIDC_REASON_ADDRESS);
		CHECK_HAS(err.text, bad[i].says);
	}
	memset(longest, 'a', sizeof(longest));
	memcpy(longest, "tcp:", 4);
	longest[300] = '\0';
	CHECK_EQ(xenidc_address_check(longest, NULL), -ENAMETOOLONG);
}

static void test_addresses_to_connect_to(void)
{
	struct xenidc_error err;

	open_loop();
	CHECK_EQ(try_connect("tcp:", &err), -EINVAL);
	CHECK_HAS(err.text, "names no host");
	CHECK_EQ(try_connect("tcp:*:80", &err), -EINVAL);
	CHECK_HAS(err.text, "names no host");
	CHECK_EQ(try_connect("tcp:localhost:0", &err), -EINVAL);
	CHECK_HAS(err.text, "port 0");
	close_loop();
}

/* --- listening and connecting */

static void connect_and_talk(const char *address)
{
	unsigned before = server.messages;

	client.connected = server.connected = client.idle = server.idle = 0;
	start_connecting(address);
	UNTIL(client.connected && server.connected);
	CHECK_EQ(xenidc_send(client.channel, message_text, 5), 0);
	UNTIL(server.messages > before);
	CHECK_EQ(xenidc_channel_close(client.channel, 0), 0);
	UNTIL(client.idle && server.idle);
	CHECK_EQ(client.why.reason, XENIDC_REASON_CLOSED);
	CHECK_EQ(server.why.reason, XENIDC_REASON_CLOSED);
	xenidc_channel_free(server.channel);
	server.channel = NULL;
}

static void test_loopback_by_default(void)
{
	char address[64];
	unsigned port;

	open_loop();
	start_listening("tcp::0");
	port = port_of(xenidc_listener_address(listener));
	CHECK_OP(port, >, 0);
	snprintf(address, sizeof(address), "tcp:127.0.0.1:%u", port);
	CHECK_STR(xenidc_listener_address(listener), address);
	connect_and_talk(address);
	CHECK_HAS(server.limits.peer.address, "127.0.0.1:");
	CHECK_STR(server.limits.peer.transport, "tcp");
	CHECK(!server.limits.peer.has_uid);
	snprintf(address, sizeof(address), "127.0.0.1:%u", port);
	CHECK_STR(client.limits.peer.address, address);
	snprintf(address, sizeof(address), "tcp:localhost:%u", port);
	connect_and_talk(address);
	if (have_six()) {
		snprintf(address, sizeof(address), "tcp:[::1]:%u", port);
		connect_and_talk(address);
		CHECK_HAS(server.limits.peer.address, "[::1]:");
	}
	close_loop();
}

static void test_everywhere(void)
{
	char address[64];

	open_loop();
	start_listening("tcp:*:0/a-service");
	CHECK_HAS(xenidc_listener_address(listener), "tcp:127.0.0.1:");
	CHECK_HAS(xenidc_listener_address(listener), "/a-service");
	connect_and_talk(xenidc_listener_address(listener));
	snprintf(address, sizeof(address), "tcp:127.1.2.3:%u/a-service", port_of(xenidc_listener_address(listener)));
	connect_and_talk(address);
	close_loop();
}

static void test_one_address(void)
{
	open_loop();
	start_listening("tcp:127.0.0.5:0");
	CHECK_HAS(xenidc_listener_address(listener), "tcp:127.0.0.5:");
	connect_and_talk(xenidc_listener_address(listener));
	close_loop();
	if (!have_six())
		return;
	open_loop();
	start_listening("tcp:[::1]:0");
	CHECK_HAS(xenidc_listener_address(listener), "tcp:[::1]:");
	connect_and_talk(xenidc_listener_address(listener));
	close_loop();
}

static void test_listen_failures(void)
{
	struct xenidc_error err = { 0 };
	xenidc_listener *first;
	char address[XENIDC_ADDRESS_MAX];

	open_loop();
	start_listening("tcp:127.0.0.1:0");
	first = listener;
	listener = NULL;
	snprintf(address, sizeof(address), "%s", xenidc_listener_address(first));
	CHECK_EQ(try_listen(address, &err), -EADDRINUSE);
	CHECK_HAS(err.text, "another program has port");
	CHECK_EQ(err.reason, XENIDC_REASON_ADDRESS);
	snprintf(address, sizeof(address), "tcp::%u", port_of(xenidc_listener_address(first)));
	CHECK_EQ(try_listen(address, &err), -EADDRINUSE);
	CHECK_EQ(try_listen("tcp:192.0.2.1:0", &err), -EADDRNOTAVAIL);
	CHECK_HAS(err.text, "does not have that address");
	fault_os_install();
	fault_os_set((struct fault){ .call = "bind", .error = EACCES });
	CHECK_EQ(try_listen("tcp::80", &err), -EACCES);
	CHECK_HAS(err.text, "below 1024");
	fault_os_set((struct fault){ .call = "socket", .error = EMFILE });
	CHECK_EQ(try_listen("tcp::0", &err), -EMFILE);
	CHECK_HAS(err.text, "ulimit -n");
	/* The port that the kernel chose for IPv4 is taken for IPv6: another one is chosen. */
	fault_os_set((struct fault){ .call = "bind", .countdown = 1, .repeat = 1, .error = EADDRINUSE });
	CHECK_EQ(try_listen("tcp::0", &err), 0);
	CHECK_EQ(fault_os_fired(), 1);
	fault_os_remove();
	xenidc_listener_free(first);
	close_loop();
}

static void test_nobody_listens(void)
{
	char address[64];

	open_loop();
	start_listening("tcp::0");
	snprintf(address, sizeof(address), "%s", xenidc_listener_address(listener));
	xenidc_listener_free(listener);
	listener = NULL;
	start_connecting(address);
	UNTIL(client.idle);
	CHECK_EQ(client.why.reason, XENIDC_REASON_UNREACHABLE);
	CHECK_EQ(client.why.code, -ECONNREFUSED);
	CHECK_HAS(client.why.text, "nobody listens there");
	CHECK_HAS(client.why.text, address + 4);
	close_loop();
}

static void test_nobody_answers(void)
{
	char address[64];
	uint16_t port = open_full_port(1, 0);

	open_loop();
	snprintf(address, sizeof(address), "tcp:127.0.0.1:%u", port);
	start_connecting(address);
	UNTIL(client.idle);
	CHECK_EQ(client.why.reason, XENIDC_REASON_TIMEOUT);
	CHECK_EQ(client.why.code, -ETIMEDOUT);
	CHECK_HAS(client.why.text, "firewall");
	close_loop();
	close_full_port();
}

static void test_unknown_host(void)
{
	struct xenidc_error err = { 0 };

	fake_install();
	open_loop();
	fake_error = EAI_NONAME;
	CHECK_EQ(try_connect("tcp:the-host.test", &err), -ENOENT);
	CHECK_EQ(err.reason, XENIDC_REASON_UNREACHABLE);
	CHECK_HAS(err.text, "cannot look up the host \"the-host.test\"");
	fake_error = EAI_AGAIN;
	CHECK_EQ(try_connect("tcp:the-host.test", &err), -EAGAIN);
	CHECK_HAS(err.text, "name server does not answer");
	fake_error = 0; /* and no address */
	CHECK_EQ(try_connect("tcp:the-host.test", &err), -ENOENT);
	close_loop();
	fake_remove();
}

/* A name with several addresses: those that refuse or do not answer are passed over, and not one by one. */
static void test_all_addresses_are_tried(void)
{
	char address[64];
	uint64_t start;
	unsigned port;

	fake_install();
	open_loop();
	start_listening("tcp:127.0.0.9:0");
	port = port_of(xenidc_listener_address(listener));
	open_full_port(7, (uint16_t)port);
	snprintf(address, sizeof(address), "tcp:the-host.test:%u", port);
	fake_count = 3;
	memcpy(fake_hosts, (uint8_t[]){ 8, 7, 9 }, 3); /* refuses, does not answer, answers */
	start = check_now();
	connect_and_talk(address);
	CHECK_OP(check_now() - start, >=, 200 * XI_MS);
	CHECK_HAS(client.limits.peer.address, "127.0.0.9:");
	/* Nobody: the most telling error is told, and whose it was. */
	fake_count = 2;
	start_connecting(address);
	UNTIL(client.idle == 2);
	CHECK_EQ(client.why.code, -ECONNREFUSED);
	CHECK_HAS(client.why.text, "the-host.test");
	CHECK_HAS(client.why.text, "127.0.0.8");
	close_loop();
	close_full_port();
	fake_remove();
}

static void test_given_up_while_dialling(void)
{
	char address[64];
	uint16_t port = open_full_port(1, 0);

	open_loop();
	snprintf(address, sizeof(address), "tcp:127.0.0.1:%u", port);
	start_connecting(address);
	CHECK_OP(xenidc_loop_step(loop, 10 * XI_MS), >=, 0);
	CHECK_EQ(xenidc_channel_close(client.channel, 0), 0);
	UNTIL(client.idle);
	CHECK_EQ(client.why.reason, XENIDC_REASON_CANCELLED);
	start_connecting(address);
	close_loop(); /* with the dial under way */
	close_full_port();
}

static int same_names(int fd, struct sockaddr *address, socklen_t *length)
{
	return os_before->getpeername(fd, address, length);
}

/* A socket that the kernel connected to itself has found nobody. */
static void test_own_echo(void)
{
	fake_install();
	open_loop();
	start_listening("tcp:127.0.0.1:0");
	fake_os.getsockname = same_names;
	start_connecting(xenidc_listener_address(listener));
	UNTIL(client.idle);
	CHECK_EQ(client.why.code, -ECONNREFUSED);
	close_loop();
	fake_remove();
}

/* Somebody else's server at that port. */
static void test_not_xenidc(void)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof(at);
	int door = socket(AF_INET, SOCK_STREAM, 0), fd = -1;
	char address[64];

	CHECK(door >= 0 && bind(door, (struct sockaddr *)&at, sizeof(at)) == 0 && listen(door, 1) == 0);
	CHECK_EQ(getsockname(door, (struct sockaddr *)&at, &length), 0);
	open_loop();
	snprintf(address, sizeof(address), "tcp:127.0.0.1:%u", ntohs(at.sin_port));
	start_connecting(address);
	fd = accept(door, NULL, NULL);
	CHECK(fd >= 0);
	CHECK_EQ(write(fd, "SSH-2.0-other\r\n", 15), 15);
	UNTIL(client.idle);
	CHECK_EQ(client.why.reason, XENIDC_REASON_PROTOCOL);
	CHECK_HAS(client.why.text, "does not speak xenidc");
	close(fd);
	close(door);
	close_loop();
}

/* --- the end */

/* A step of a loop that is not the usual one. */
static void step(xenidc_loop *other)
{
	CHECK_OP(xenidc_loop_step(other, 20 * XI_MS), >=, 0);
}

/*
 * What was sent at last is read by the peer, although much of it had to wait in our kernel, and although we had not
 * read what the peer sent (which makes the kernel reset a connection that is closed).
 */
static void test_end_is_read_after_all(void)
{
	static const char big[16384];
	xenidc_loop *mine, *other;
	unsigned sent = 0;

	fault_os_install();
	small_close = true;
	open_loop();
	other = loop;
	start_listening("tcp::0");
	CHECK_EQ(xenidc_loop_new(NULL, &mine), 0);
	loop = mine;
	start_connecting(xenidc_listener_address(listener));
	while (!client.connected || !server.connected) {
		step(mine);
		step(other);
	}
	CHECK_EQ(xenidc_send(server.channel, message_text, 5), 0);
	while (xenidc_send(client.channel, big, sizeof(big)) == 0)
		sent++;
	CHECK_OP(sent, >=, 8);
	fault_os_set((struct fault){ .call = "recv", .error = EAGAIN });
	CHECK_EQ(xenidc_channel_close(client.channel, 0), 0);
	while (!client.idle)
		step(mine);
	fault_os_clear();
	message_text = NULL; /* any */
	while (!server.idle)
		step(other);
	message_text = "hello";
	CHECK_EQ(server.messages, sent);
	CHECK_EQ(server.why.reason, XENIDC_REASON_CLOSED);
	xenidc_listener_free(listener);
	listener = NULL;
	xenidc_channel_free(server.channel);
	server.channel = NULL;
	xenidc_loop_free(other);
	small_close = false;
	close_loop();
	fault_os_remove();
}

/* Sockets that linger are gone as soon as the peer's are. */
static void test_nothing_lingers_on(void)
{
	open_pair("tcp::0");
	CHECK_EQ(xenidc_channel_close(client.channel, 0), 0);
	UNTIL(client.idle && server.idle);
	for (uint64_t start = check_now(); xi_alive(XI_OBJECT_FD) > 2 + (have_six() ? 2 : 1);) {
		CHECK_OP(check_now() - start, <, XI_SECOND / 2 * check_factor());
		CHECK_OP(xenidc_loop_step(loop, 10 * XI_MS), >=, 0);
	}
	close_loop();
}

static void test_peer_is_killed(void)
{
	int ready[2];
	char address[XENIDC_ADDRESS_MAX];
	pid_t pid;

	CHECK_EQ(pipe(ready), 0);
	pid = check_fork();
	if (pid == 0) {
		open_loop();
		start_listening("tcp::0");
		snprintf(address, sizeof(address), "%s", xenidc_listener_address(listener));
		CHECK_EQ(write(ready[1], address, sizeof(address)), (ssize_t)sizeof(address));
		UNTIL(false);
	}
	CHECK_EQ(read(ready[0], address, sizeof(address)), (ssize_t)sizeof(address));
	open_loop();
	start_connecting(address);
	UNTIL(client.connected);
	kill(pid, SIGKILL);
	UNTIL(client.idle);
	CHECK_EQ(client.why.reason, XENIDC_REASON_LOST);
	CHECK_HAS(client.why.text, "connection to 127.0.0.1:");
	CHECK_EQ(check_wait(pid), -SIGKILL);
	close(ready[0]);
	close(ready[1]);
	close_loop();
}

/* What a child does with what it inherited does not reach the peer. */
static void test_fork_leaves_the_connection_alone(void)
{
	pid_t pid;

	open_pair("tcp::0");
	pid = check_fork();
	if (pid == 0) {
		xenidc_loop_free(loop);
		_exit(0);
	}
	CHECK_EQ(check_wait(pid), 0);
	CHECK_EQ(xenidc_send(client.channel, message_text, 5), 0);
	UNTIL(server.messages == 1);
	CHECK_EQ(client.idle + server.idle, 0);
	close_loop();
}

/* --- out of something */

static void test_accept_pauses(void)
{
	fault_os_install();
	open_loop();
	start_listening("tcp::0");
	fault_os_set((struct fault){ .call = "accept", .repeat = 1, .error = EMFILE });
	start_connecting(xenidc_listener_address(listener));
	UNTIL(client.connected && server.connected);
	CHECK_EQ(fault_os_fired(), 1);
	close_loop();
	fault_os_remove();
}

static void test_no_buffers(void)
{
	fault_os_install();
	open_pair("tcp::0");
	fault_os_set((struct fault){ .call = "sendmsg", .repeat = 3, .error = ENOBUFS });
	CHECK_EQ(xenidc_send(client.channel, message_text, 5), 0);
	UNTIL(server.messages == 1);
	CHECK_EQ(fault_os_fired(), 3);
	fault_os_clear();
	close_loop();
	fault_os_remove();
}

/* Each call that can fail while a connection is made fails once: it is made, or ends with a reason; nothing is left. */
static void fail_everything(const char *call)
{
	for (unsigned k = 0;; k++) {
		struct xenidc_error err = { 0 };
		bool fired;
		fault_os_install();
		open_loop();
		start_listening("tcp:127.0.0.1:0");
		make_client();
		fault_os_set((struct fault){ .call = call, .countdown = k, .repeat = 1 });
		int r = try_connect(xenidc_listener_address(listener), &err);
		if (r == 0)
			UNTIL(client.idle || (client.connected && server.connected));
		fired = fault_os_fired() > 0;
		if (r || client.idle)
			CHECK(err.text[0] || client.why.text[0]);
		fault_os_clear();
		close_loop();
		fault_os_remove();
		if (!fired)
			break;
	}
}

static void test_each_call_fails_once(void)
{
	static const char *const calls[] = { "alloc",      "mmap",        "socket", "accept",  "connect",
					     "setsockopt", "getsockopt",  "recv",   "sendmsg", "getpeername",
					     "epoll_ctl",  "getsockname", "recvmsg" };

	for (unsigned i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
		fail_everything(calls[i]);
}

CHECK_MAIN(TEST(test_addresses), TEST(test_addresses_to_connect_to), TEST(test_loopback_by_default),
	   TEST(test_everywhere), TEST(test_one_address), TEST(test_listen_failures), TEST(test_nobody_listens),
	   TEST(test_nobody_answers), TEST(test_unknown_host), TEST(test_all_addresses_are_tried),
	   TEST(test_given_up_while_dialling), TEST(test_own_echo), TEST(test_not_xenidc),
	   TEST(test_end_is_read_after_all), TEST(test_nothing_lingers_on), TEST(test_peer_is_killed),
	   TEST(test_fork_leaves_the_connection_alone), TEST(test_accept_pauses), TEST(test_no_buffers),
	   TEST(test_each_call_fails_once))
