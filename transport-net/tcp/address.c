/* SPDX-License-Identifier: MIT */
/* Addresses: HOST[:PORT][/SERVICE], and what a host resolves to. */
#include "tcp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>

#include "xenidc-core/base/assert.h"
#include "xenidc-core/base/log.h"
#include "xenidc-core/base/os.h"

static int bad(struct xenidc_error *err, const char *rest, const char *why)
{
	return xi_error(err, -EINVAL, XENIDC_REASON_ADDRESS, "the address \"tcp:%.80s\" cannot be used: %s", rest, why);
}

static int too_long(struct xenidc_error *err, const char *rest, const char *what, unsigned most)
{
	return xi_error(err, -ENAMETOOLONG, XENIDC_REASON_ADDRESS,
			"the address \"tcp:%.60s\" cannot be used: its %s is longer than %u characters; shorten it",
			rest, what, most);
}

static int parse_service(const char *rest, const char *text, char *ret, struct xenidc_error *err)
{
	size_t length = strlen(text);

	if (!length)
		return bad(err, rest, "no service follows the slash; name one, or leave the slash out");
	if (length > XENIDC_SERVICE_MAX)
		return too_long(err, rest, "service", XENIDC_SERVICE_MAX);
	for (size_t i = 0; i < length; i++)
		if (text[i] <= ' ' || text[i] > '~')
			return bad(err, rest, "its service holds a blank or a character that is not ASCII");
	memcpy(ret, text, length + 1);
	return 0;
}

static int parse_port(const char *rest, const char *text, size_t length, uint16_t *ret, struct xenidc_error *err)
{
	unsigned long port = 0;

	for (size_t i = 0; i < length; i++) {
		if (text[i] < '0' || text[i] > '9' || i >= 5)
			return bad(err, rest, "its port has to be a number from 1 to 65535");
		port = port * 10 + (unsigned long)(text[i] - '0');
	}
	if (!length || port > 65535)
		return bad(err, rest, "its port has to be a number from 1 to 65535");
	*ret = (uint16_t)port;
	return 0;
}

/* An IPv6 address without its zone is what inet_pton() knows. */
static bool is_six(const char *host)
{
	char plain[TCP_HOST_MAX + 1];
	struct in6_addr six;
	size_t length = strcspn(host, "%");

	XI_ASSERT(length < sizeof(plain));
	memcpy(plain, host, length);
	plain[length] = '\0';
	return inet_pton(AF_INET6, plain, &six) == 1;
}

static const char *check_name(const char *host)
{
	size_t label = 0;
	bool digits = true; /* the present label is a number */

	for (const char *p = host; *p; p++) {
		bool digit = *p >= '0' && *p <= '9';
		bool letter = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || *p == '_';
		if (*p == '.') {
			if (!label)
				return "its host name has a dot where a letter or a digit should be";
			label = 0;
			digits = p[1] ? true : digits;
			continue;
		}
		if (!digit && !letter && (*p != '-' || !label))
			return "its host name holds a character that names cannot have; an IPv6 address has to stand "
			       "in "
			       "brackets, as in tcp:[::1]:47615";
		digits = digits && digit;
		if (++label > 63)
			return "a part of its host name is longer than 63 characters";
	}
	/* No name ends in a number (top-level domains are letters), so this is an IPv4 address gone wrong. */
	return digits ? "its host is neither a name nor an IPv4 address, which is four numbers up to 255" : NULL;
}

static int parse_host(const char *rest, const char *text, size_t length, struct tcp_name *ret, struct xenidc_error *err)
{
	struct in_addr four;
	const char *why;

	if (length > TCP_HOST_MAX)
		return too_long(err, rest, "host", TCP_HOST_MAX);
	memcpy(ret->host, text, length);
	ret->host[length] = '\0';
	if (!length || !strcmp(ret->host, "*"))
		return 0;
	ret->numeric = inet_pton(AF_INET, ret->host, &four) == 1;
	if (ret->numeric)
		return 0;
	why = check_name(ret->host);
	return why ? bad(err, rest, why) : 0;
}

static int parse_bracketed(const char *rest, const char *end, struct tcp_name *ret, struct xenidc_error *err)
{
	size_t length = (size_t)(end - rest) - 1;

	if (length > TCP_HOST_MAX)
		return too_long(err, rest, "host", TCP_HOST_MAX);
	memcpy(ret->host, rest + 1, length);
	ret->host[length] = '\0';
	ret->numeric = ret->six = is_six(ret->host);
	if (!ret->six)
		return bad(err, rest, "what stands in brackets is not an IPv6 address; names stand without brackets");
	return 0;
}

int xi_tcp_parse(const char *rest, struct tcp_name *ret, struct xenidc_error *err)
{
	size_t length = strcspn(rest, "/"), host;
	struct tcp_name name = { .port = XENIDC_TCP_PORT };
	int r = 0;

	if (rest[length])
		r = parse_service(rest, rest + length + 1, name.service, err);
	if (r)
		return r;
	if (rest[0] == '[') {
		const char *end = memchr(rest, ']', length);
		if (!end)
			return bad(err, rest, "the bracket before the IPv6 address is never closed");
		r = parse_bracketed(rest, end, &name, err);
		host = (size_t)(end - rest) + 1;
		if (!r && host < length && rest[host] != ':')
			return bad(err, rest, "after the bracket only a port may follow, as in tcp:[::1]:47615");
	} else {
		host = strcspn(rest, ":/");
		if (host < length && memchr(rest + host + 1, ':', length - host - 1))
			return bad(err, rest, "an IPv6 address has to stand in brackets, as in tcp:[::1]:47615");
		r = parse_host(rest, rest, host, &name, err);
	}
	if (!r && host < length)
		r = parse_port(rest, rest + host + 1, length - host - 1, &name.port, err);
	if (!r)
		*ret = name;
	return r;
}

int xi_tcp_check(const char *rest, char *service, struct xenidc_error *err)
{
	struct tcp_name name;
	int r = xi_tcp_parse(rest, &name, err);

	if (!r)
		memcpy(service, name.service, sizeof(name.service));
	return r;
}

void xi_tcp_set_port(union tcp_socket_address *address, uint16_t port)
{
	if (address->any.sa_family == AF_INET6)
		address->six.sin6_port = htons(port);
	else
		address->four.sin_port = htons(port);
}

uint16_t xi_tcp_get_port(const union tcp_socket_address *address)
{
	return ntohs(address->any.sa_family == AF_INET6 ? address->six.sin6_port : address->four.sin_port);
}

void xi_tcp_text(const union tcp_socket_address *address, char text[TCP_TEXT_MAX])
{
	char plain[INET6_ADDRSTRLEN] = "?";
	bool six = address->any.sa_family == AF_INET6;

	if (six)
		inet_ntop(AF_INET6, &address->six.sin6_addr, plain, sizeof(plain));
	else
		inet_ntop(AF_INET, &address->four.sin_addr, plain, sizeof(plain));
	if (six && address->six.sin6_scope_id)
		snprintf(text, TCP_TEXT_MAX, "[%s%%%u]:%u", plain, address->six.sin6_scope_id,
			 xi_tcp_get_port(address));
	else
		snprintf(text, TCP_TEXT_MAX, six ? "[%s]:%u" : "%s:%u", plain, xi_tcp_get_port(address));
}

void xi_tcp_name_text(const struct tcp_name *name, uint16_t port, char *text, size_t size)
{
	snprintf(text, size, name->six ? "[%s]:%u" : "%s:%u", name->host, port);
}

static void add_target(struct tcp_target *to, const struct addrinfo *from, uint16_t port)
{
	XI_ASSERT(from->ai_addrlen <= sizeof(to->address));
	*to = (struct tcp_target){ .length = from->ai_addrlen };
	memcpy(&to->address, from->ai_addr, from->ai_addrlen);
	xi_tcp_set_port(&to->address, port);
}

static unsigned builtin(const struct tcp_name *name, struct tcp_target *ret)
{
	const struct in6_addr loopback = IN6ADDR_LOOPBACK_INIT;
	bool any = name->host[0] == '*';

	ret[0] = ret[1] = (struct tcp_target){ 0 };
	ret[0].length = sizeof(ret[0].address.four);
	ret[0].address.four.sin_family = AF_INET;
	ret[0].address.four.sin_addr.s_addr = htonl(any ? INADDR_ANY : INADDR_LOOPBACK);
	ret[1].length = sizeof(ret[1].address.six);
	ret[1].address.six.sin6_family = AF_INET6;
	if (!any)
		ret[1].address.six.sin6_addr = loopback;
	for (unsigned i = 0; i < 2; i++)
		xi_tcp_set_port(&ret[i].address, name->port);
	return 2;
}

static int unknown_host(const struct tcp_name *name, int error, struct xenidc_error *err)
{
	if (error == EAI_AGAIN)
		return xi_error(
			err, -EAGAIN, XENIDC_REASON_UNREACHABLE,
			"cannot look up the host \"%.100s\": the name server does not answer; check the network, "
			"or give the host's numeric address",
			name->host);
	if (error == EAI_MEMORY)
		return xi_error(err, -ENOMEM, XENIDC_REASON_RESOURCE, "looking up the host \"%.100s\": out of memory",
				name->host);
	return xi_error(err, -ENOENT, XENIDC_REASON_UNREACHABLE,
			"cannot look up the host \"%.100s\": %s; check how it is spelled, or give its numeric address",
			name->host, gai_strerror(error));
}

int xi_tcp_resolve(const struct tcp_name *name, bool to_listen, struct tcp_target *ret, struct xenidc_error *err)
{
	struct addrinfo *list = NULL;
	int flags = AI_NUMERICSERV | (name->numeric ? AI_NUMERICHOST : 0) | (to_listen ? AI_PASSIVE : 0);
	unsigned n = 0;
	int r;

	if (!name->host[0] || name->host[0] == '*')
		return (int)builtin(name, ret);
	r = xi_os->getaddrinfo(name->host, NULL, flags, &list);
	if (r)
		return unknown_host(name, r, err);
	for (const struct addrinfo *a = list; a && n < TCP_TARGETS_MAX; a = a->ai_next)
		if (a->ai_family == AF_INET || a->ai_family == AF_INET6)
			add_target(&ret[n++], a, name->port);
	xi_os->freeaddrinfo(list);
	return n ? (int)n : unknown_host(name, EAI_NONAME, err);
}
