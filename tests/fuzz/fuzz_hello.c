/* SPDX-License-Identifier: MIT */
/*
 * The parser of connect messages: as they come, and with magic, length and checksum set right, so that what is behind
 * them is reached. What is accepted is written again to the same meaning.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "tests/lib/check.h"
#include "xenidc-core/hello.h"

static void check_text(const char *text, size_t most)
{
	CHECK(strnlen(text, most + 1) <= most);
}

static void check_again(const struct xi_hello *h)
{
	uint8_t bytes[XI_HELLO_MAX];
	uint32_t length = xi_hello_put(bytes, h);
	struct xi_hello again;
	const char *why;

	CHECK_EQ(xi_hello_length(bytes, length), length);
	CHECK_EQ(xi_hello_parse(bytes, length, &again, &why), 0);
	CHECK_EQ(again.kind, h->kind);
	CHECK_EQ(again.features, h->features);
	if (h->kind == XI_HELLO_CONNECT || h->kind == XI_HELLO_ACCEPT) {
		CHECK_MEM(&again.budget, &h->budget, sizeof(h->budget));
		CHECK_MEM(&again.session, &h->session, sizeof(h->session));
	}
	if (h->kind == XI_HELLO_CONNECT) {
		CHECK_STR(again.service, h->service);
		CHECK_EQ(again.auth_len, h->auth_len);
		CHECK_MEM(again.auth, h->auth, h->auth_len);
	}
	if (h->kind == XI_HELLO_REFUSE) {
		CHECK_EQ(again.reason, h->reason);
		CHECK_STR(again.text, h->text);
	}
}

static void parse(const uint8_t *bytes, uint32_t length)
{
	struct xi_hello h;
	const char *why = NULL;

	if (xi_hello_parse(bytes, length, &h, &why)) {
		CHECK(why);
		return;
	}
	CHECK(h.kind >= XI_HELLO_CONNECT && h.kind <= XI_HELLO_READY && h.major_min <= h.major_max);
	check_text(h.service, XENIDC_SERVICE_MAX);
	check_text(h.text, XI_REASON_TEXT_MAX);
	CHECK(h.auth_len <= XI_AUTH_MAX && h.transport_len <= XI_EXPORT_MAX);
	if (h.transport_len)
		CHECK(h.transport >= bytes && h.transport + h.transport_len <= bytes + length);
	/* Sections of another major version are not looked at. */
	if (h.major_min <= XI_PROTOCOL_MAJOR && h.major_max >= XI_PROTOCOL_MAJOR_MIN)
		check_again(&h);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = input(data, size);
	bool sealed = input_8(&in) & 1;
	size_t length;
	uint8_t *bytes = input_bytes(&in, XI_HELLO_MAX, &length);
	int told;

	if (sealed && length >= XI_HELLO_HEAD) {
		memcpy(bytes, "XIDC", 4);
		xi_hello_seal(bytes, (uint32_t)length);
	}
	told = xi_hello_length(bytes, length);
	CHECK(told == -EPROTO || told == 0 || (told >= (int)XI_HELLO_HEAD && told <= XI_HELLO_MAX));
	/* The more there is of it, the more is known; what was known stays. */
	for (size_t n = 0; n <= length && n <= XI_HELLO_HEAD; n++) {
		int part = xi_hello_length(bytes, n);
		CHECK(part == 0 || part == told);
	}
	parse(bytes, (uint32_t)length);
	free(bytes);
	return 0;
}
