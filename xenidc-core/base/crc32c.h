/* SPDX-License-Identifier: MIT */
/* CRC32C (Castagnoli, RFC 3720 appendix B.4), with the processor's instruction where there is one. */
#ifndef XI_BASE_CRC32C_H
#define XI_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Continue `crc` (0 to start) over `length` bytes. */
uint32_t xi_crc32c(uint32_t crc, const void *bytes, size_t length);

#ifdef XI_TESTING
/* The same without the instruction, so that a test can compare both on one machine. */
uint32_t xi_crc32c_by_table(uint32_t crc, const void *bytes, size_t length);
#endif

#endif
