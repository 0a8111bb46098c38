/* SPDX-License-Identifier: MIT */
/* What an error of a socket means for a person, and what to do about it. */
#define _GNU_SOURCE
#include "tcp.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "xenidc-core/base/assert.h"

enum xenidc_reason xi_tcp_connect_words(int error, const char *where, char *text, size_t size)
{
	XI_ASSERT(error < 0);
	switch (-error) {
	case ECONNREFUSED:
		snprintf(text, size,
			 "cannot connect to %s: nobody listens there (connection refused); start the other side, or "
			 "check "
			 "the port",
			 where);
		return XENIDC_REASON_UNREACHABLE;
	case ETIMEDOUT:
		snprintf(text, size,
			 "cannot connect to %s: no answer; the machine may be off, or a firewall may drop what is sent "
			 "there: open the port in it",
			 where);
		return XENIDC_REASON_TIMEOUT;
	case EHOSTUNREACH:
	case ENETUNREACH:
	case ENETDOWN:
	case EHOSTDOWN:
		snprintf(text, size,
			 "cannot connect to %s: no way leads there (%s); check the network and the address (`ip route "
			 "get`)",
			 where, strerrordesc_np(-error));
		return XENIDC_REASON_UNREACHABLE;
	case EACCES:
	case EPERM:
		snprintf(text, size,
			 "cannot connect to %s: this machine does not allow it (%s); check its firewall and the "
			 "permissions of this process",
			 where, strerrordesc_np(-error));
		return XENIDC_REASON_PERMISSION;
	case EMFILE:
	case ENFILE:
	case ENOBUFS:
	case ENOMEM:
		snprintf(text, size,
			 "cannot connect to %s: %s; close some of what is open, or raise the limit (`ulimit -n`)",
			 where, strerrordesc_np(-error));
		return XENIDC_REASON_RESOURCE;
	default:
		snprintf(text, size, "cannot connect to %s: %s; check the address and the network", where,
			 strerrordesc_np(-error));
		return XENIDC_REASON_UNREACHABLE;
	}
}

enum xenidc_reason xi_tcp_listen_words(int error, const char *where, uint16_t port, char *text, size_t size)
{
	XI_ASSERT(error < 0);
	switch (-error) {
	case EADDRINUSE:
		snprintf(text, size,
			 "cannot listen at %s: another program has port %u; choose another port, or see who it is with "
			 "`ss "
			 "-ltnp sport = :%u`",
			 where, port, port);
		return XENIDC_REASON_ADDRESS;
	case EADDRNOTAVAIL:
		snprintf(text, size,
			 "cannot listen at %s: this machine does not have that address; choose one that `ip address` "
			 "shows, "
			 "or * for all",
			 where);
		return XENIDC_REASON_ADDRESS;
	case EACCES:
		snprintf(text, size, "cannot listen at %s: no permission%s", where,
			 port && port < 1024
				 ? "; ports below 1024 need a privilege (CAP_NET_BIND_SERVICE), choose another"
				 : "; check the security policy of this machine");
		return XENIDC_REASON_PERMISSION;
	case EMFILE:
	case ENFILE:
	case ENOBUFS:
	case ENOMEM:
		snprintf(text, size,
			 "cannot listen at %s: %s; close some of what is open, or raise the limit (`ulimit -n`)", where,
			 strerrordesc_np(-error));
		return XENIDC_REASON_RESOURCE;
	default:
		snprintf(text, size, "cannot listen at %s: %s; check the address", where, strerrordesc_np(-error));
		return XENIDC_REASON_ADDRESS;
	}
}
