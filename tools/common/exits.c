/* SPDX-License-Identifier: MIT */
#include "tools/common/exits.h"

#include <errno.h>

enum xi_exit xi_exit_of(const struct xenidc_error *err)
{
	switch (err->reason) {
	case XENIDC_REASON_ADDRESS:
		/* A good address that this machine does not give us. */
		if (err->code == -EADDRINUSE || err->code == -EADDRNOTAVAIL || err->code == -EACCES)
			return XI_EXIT_RESOURCE;
		return err->by_peer ? XI_EXIT_REFUSED : XI_EXIT_USAGE;
	case XENIDC_REASON_RESOURCE:
	case XENIDC_REASON_PERMISSION:
	case XENIDC_REASON_UNSUPPORTED:
	case XENIDC_REASON_BUDGET:
	case XENIDC_REASON_LIMIT:
		return err->by_peer ? XI_EXIT_REFUSED : XI_EXIT_RESOURCE;
	case XENIDC_REASON_VERSION:
	case XENIDC_REASON_SERVICE:
	case XENIDC_REASON_DENIED:
	case XENIDC_REASON_IDENTITY:
		return XI_EXIT_REFUSED;
	case XENIDC_REASON_NONE:
		/* Found before anybody was asked. */
		return err->code == -EINVAL || err->code == -EPROTONOSUPPORT || err->code == -ENAMETOOLONG
			       ? XI_EXIT_USAGE
			       : XI_EXIT_RESOURCE;
	default:
		return XI_EXIT_UNREACHABLE;
	}
}
