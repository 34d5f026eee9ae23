/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUZZ_H
#define FUZZ_H

/* An input as a stream of numbers; behind its end there are zeros. */

#include <stddef.h>
#include <stdint.h>

struct fuzz_input {
	const uint8_t *at;
	size_t left;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static inline uint8_t fuzz_u8(struct fuzz_input *input)
{
	if (!input->left)
		return 0;
	input->left--;
	return *input->at++;
}

static inline uint16_t fuzz_u16(struct fuzz_input *input)
{
	const uint16_t low = fuzz_u8(input);

	return (uint16_t)(low | fuzz_u8(input) << 8);
}

static inline uint32_t fuzz_u32(struct fuzz_input *input)
{
	const uint32_t low = fuzz_u16(input);

	return low | (uint32_t)fuzz_u16(input) << 16;
}

/* A guest address: mostly near base, else at the edges where sums wrap. */
static inline uint64_t fuzz_addr(struct fuzz_input *input, uint64_t base)
{
	const uint8_t kind = fuzz_u8(input);
	const uint16_t low = fuzz_u16(input);

	switch (kind & 7) {
	case 0:
		return UINT64_MAX - low % 32;
	case 1:
		return 0x10000u - 16 + low % 32; /* where regions touch */
	case 2:
		return 0x20000u - 600 + low % 1200; /* where memory ends */
	case 3:
		return 0x40000u - 8 + low % 16; /* where the gap ends */
	case 4:
		return (uint64_t)low << 16;
	default:
		return base + low % 0x8000u;
	}
}

/* A length: mostly what a request has, else an edge. */
static inline uint32_t fuzz_len(struct fuzz_input *input)
{
	static const uint32_t some[] = {
		1,
		16,
		512,
		1024,
		4096,
		0,
		20,
		511,
		513,
		8,
		15,
		17,
		24,
		32,
		64,
		160,
		65536,
		1u << 20,
		(1u << 20) + 1,
		UINT32_MAX,
		UINT32_MAX - 15,
	};
	const uint8_t kind = fuzz_u8(input);

	if (kind < 128)
		return some[kind % (sizeof(some) / sizeof(some[0]))];
	return fuzz_u16(input);
}

#endif
