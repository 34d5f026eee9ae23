/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Debian's kernels take virtio-mmio devices from ACPI only. The tables are
 * those of a machine with "reduced hardware": no PM timer, no legacy devices,
 * so the serial port is in the namespace as well.
 */

#include <string.h>

#include "acpi.h"

#define HEADER_LEN 36
#define FADT_LEN 276
#define RSDP_LEN 36
#define DSDT_MAX 1024

/* Where each table is. */
#define RSDP_ADDR ACPI_ADDR
#define XSDT_ADDR (ACPI_ADDR + 0x40)
#define FADT_ADDR (ACPI_ADDR + 0x100)
#define MADT_ADDR (ACPI_ADDR + 0x300)
#define DSDT_ADDR (ACPI_ADDR + 0x400)

/* Numbers and names as bytes. */
#define LE16(n) (uint8_t)(n), (uint8_t)((n) >> 8)
#define LE32(n) LE16(n), LE16((uint32_t)(n) >> 16)
#define LE64(n) LE32(n), LE32((uint64_t)(n) >> 32)
#define U8(s, i) (uint8_t)(s)[i]
#define TEXT4(s) U8(s, 0), U8(s, 1), U8(s, 2), U8(s, 3)
#define PORT(port) 1, 8, 0, 1, LE64(port) /* a byte at an I/O port */

/* AML, the code of the namespace, as far as it is needed. */
#define DEVICE 0x5b, 0x82
#define SCOPE 0x10
#define PACKAGE 0x12
#define LENGTH(n) 0x40 | ((n)&0xf), (uint8_t)((n) >> 4) /* from here on */
#define NAME(s) 0x08, TEXT4(s)
#define STRING 0x0d
#define DWORD 0x0c
#define BYTE 0x0a
#define BUFFER(len) 0x11, (len) + 3, BYTE, len
#define MEMORY(addr, size) 0x86, LE16(9), 1, LE32(addr), LE32(size)
#define PORTS(first, count) 0x47, 1, LE16(first), LE16(first), 1, count
#define EDGE_INTERRUPT(gsi) 0x89, LE16(6), 3, 1, LE32(gsi)
#define END_TAG 0x79, 0

struct bytes {
	uint8_t at[DSDT_MAX];
	size_t len;
};

static void add(struct bytes *bytes, const uint8_t *data, size_t len)
{
	memcpy(bytes->at + bytes->len, data, len);
	bytes->len += len;
}

static void set_checksum(uint8_t *table, size_t len, size_t where)
{
	uint8_t sum = 0;

	for (size_t i = 0; i < len; i++)
		sum = (uint8_t)(sum + table[i]);
	table[where] = (uint8_t)(table[where] - sum);
}

/* clang-format off */

/* Into guest memory; the table has room for its header. */
static void put(const struct vmm *vmm, uint32_t addr, const char *signature,
		uint8_t revision, const uint8_t *table, size_t len)
{
	const uint8_t header[HEADER_LEN] = {
		TEXT4(signature), LE32(len), revision, 0 /* the checksum */,
		'K', 'T', 'V', 'B', 'L', 'K',
		'K', 'T', 'V', 'B', 'L', 'K', 'V', 'M', LE32(1),
		'K', 'T', 'V', 'B', LE32(1),
	};

	memcpy(vmm->ram + addr, table, len);
	memcpy(vmm->ram + addr, header, sizeof(header));
	set_checksum(vmm->ram + addr, len, 9);
}

static void add_disk(struct bytes *aml, unsigned int slot)
{
	const uint8_t device[] = {
		DEVICE, LENGTH(60), 'V', 'B', 'L', (uint8_t)('0' + slot),
		NAME("_HID"), STRING, TEXT4("LNRO"), TEXT4("0005"), 0,
		NAME("_UID"), BYTE, (uint8_t)slot,
		NAME("_CRS"), BUFFER(23),
			MEMORY(BUS_ADDR + KTVBLK_MMIO_SIZE * slot,
			       KTVBLK_MMIO_SIZE),
			EDGE_INTERRUPT(BUS_GSI + slot),
			END_TAG,
	};

	_Static_assert(sizeof(device) == 2 + 60, "its LENGTH");
	add(aml, device, sizeof(device));
}

static void add_serial(struct bytes *aml)
{
	const uint8_t device[] = {
		DEVICE, LENGTH(44), TEXT4("COM1"),
		NAME("_HID"), DWORD, 0x41, 0xd0, 0x05, 0x01, /* PNP0501 */
		NAME("_CRS"), BUFFER(19),
			PORTS(SERIAL_PORT, SERIAL_PORTS),
			EDGE_INTERRUPT(SERIAL_GSI),
			END_TAG,
	};

	_Static_assert(sizeof(device) == 2 + 44, "its LENGTH");
	add(aml, device, sizeof(device));
}

static void add_scope(struct bytes *aml, const struct bytes *content)
{
	const uint8_t scope[] = {
		SCOPE, LENGTH(2 + 5 + content->len), '\\', TEXT4("_SB_"),
	};

	add(aml, scope, sizeof(scope));
	add(aml, content->at, content->len);
}

static void put_dsdt(const struct vmm *vmm)
{
	/* Written to SLEEP_PORT, the 5 means power-off. */
	const uint8_t s5[] = {
		NAME("_S5_"), PACKAGE, 7, 4, BYTE, 5, 0, 0, 0,
	};
	struct bytes dsdt = { .len = HEADER_LEN }, devices = { .len = 0 };

	add_serial(&devices);
	for (unsigned int i = 0; i < vmm->n_disks; i++)
		if (vmm->disks[i].dev)
			add_disk(&devices, i);
	add(&dsdt, s5, sizeof(s5));
	add_scope(&dsdt, &devices);
	put(vmm, DSDT_ADDR, "DSDT", 2, dsdt.at, dsdt.len);
}

void acpi_build(const struct vmm *vmm)
{
	static const uint8_t fadt[FADT_LEN] = {
		[112] = LE32(1 << 20 | 1 << 10), /* reduced, and can be reset */
		[116] = PORT(RESET_PORT), RESET_VALUE,
		[140] = LE64(DSDT_ADDR),
		[244] = PORT(SLEEP_PORT),
		[256] = PORT(SLEEP_PORT + 1),
	};
	static const uint8_t madt[] = {
		[HEADER_LEN] = LE32(0xfee00000), LE32(1),
		0, 8, 0, 0, LE32(1), /* the CPU */
		1, 12, 1, 0, LE32(0xfec00000), LE32(0), /* the I/O APIC */
	};
	static const uint8_t xsdt[] = {
		[HEADER_LEN] = LE64(FADT_ADDR), LE64(MADT_ADDR),
	};
	static const uint8_t rsdp[RSDP_LEN] = {
		'R', 'S', 'D', ' ', 'P', 'T', 'R', ' ', 0,
		'K', 'T', 'V', 'B', 'L', 'K', 2,
		[20] = LE32(RSDP_LEN), LE64(XSDT_ADDR),
	};

	put_dsdt(vmm);
	put(vmm, FADT_ADDR, "FACP", 6, fadt, sizeof(fadt));
	put(vmm, MADT_ADDR, "APIC", 4, madt, sizeof(madt));
	put(vmm, XSDT_ADDR, "XSDT", 1, xsdt, sizeof(xsdt));
	memcpy(vmm->ram + RSDP_ADDR, rsdp, sizeof(rsdp));
	set_checksum(vmm->ram + RSDP_ADDR, 20, 8);
	set_checksum(vmm->ram + RSDP_ADDR, RSDP_LEN, 32);
}

/* clang-format on */
