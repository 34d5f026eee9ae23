/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Debian's kernels take virtio-mmio devices from ACPI only. The tables are
 * those of a machine with "reduced hardware": no PM timer, no legacy devices,
 * so the serial port is in the namespace as well.
 */

#include <string.h>

#include "vmm.h"

#define FADT_LEN 276
#define FACS_LEN 64

/* Where each table is. */
#define RSDP_ADDR ACPI_ADDR
#define XSDT_ADDR (ACPI_ADDR + 0x40)
#define FACS_ADDR (ACPI_ADDR + 0x80)
#define FADT_ADDR (ACPI_ADDR + 0x100)
#define MADT_ADDR (ACPI_ADDR + 0x300)
#define DSDT_ADDR (ACPI_ADDR + 0x400)

/* Bytes in the order they come. */
struct bytes {
	uint8_t *at;
	size_t len;
};

static void add(struct bytes *bytes, const void *data, size_t len)
{
	memcpy(bytes->at + bytes->len, data, len);
	bytes->len += len;
}

static void add8(struct bytes *bytes, unsigned int value)
{
	bytes->at[bytes->len++] = (uint8_t)value;
}

static void add16(struct bytes *bytes, uint16_t value)
{
	add(bytes, &value, sizeof(value));
}

static void add32(struct bytes *bytes, uint32_t value)
{
	add(bytes, &value, sizeof(value));
}

static void add64(struct bytes *bytes, uint64_t value)
{
	add(bytes, &value, sizeof(value));
}

static void add_text(struct bytes *bytes, const char *text)
{
	add(bytes, text, strlen(text));
}

static void set_checksum(uint8_t *table, size_t len, size_t where)
{
	uint8_t sum = 0;

	table[where] = 0;
	for (size_t i = 0; i < len; i++)
		sum = (uint8_t)(sum + table[i]);
	table[where] = (uint8_t)-sum;
}

/* A table begins; its length and checksum come at the end. */
static struct bytes begin(const struct vmm *vmm, uint32_t addr,
			  const char *signature, uint8_t revision)
{
	struct bytes table = { .at = vmm->ram + addr };

	add_text(&table, signature);
	add32(&table, 0);
	add16(&table, revision);
	add_text(&table, "KTVBLKKTVBLKVM");
	add32(&table, 1);
	add_text(&table, "KTVB");
	add32(&table, 1);
	return table;
}

static void end(const struct bytes *table)
{
	const uint32_t len = (uint32_t)table->len;

	memcpy(table->at + 4, &len, sizeof(len));
	set_checksum(table->at, table->len, 9);
}

/* AML: an object with its length before it, in two bytes that count too. */
static void add_package(struct bytes *bytes, const struct bytes *content)
{
	const size_t len = content->len + 2;

	add8(bytes, 0x40 | (unsigned int)(len & 0xf));
	add8(bytes, (unsigned int)(len >> 4));
	add(bytes, content->at, content->len);
}

static void add_interrupt(struct bytes *bytes, uint32_t gsi)
{
	static const uint8_t edge_high_exclusive[] = { 0x89, 6, 0, 0x03, 1 };

	add(bytes, edge_high_exclusive, sizeof(edge_high_exclusive));
	add32(bytes, gsi);
}

/* Device (NAME) { _HID, _UID, _CRS }; hid is AML. */
static void add_device(struct bytes *scope, const char *name,
		       const struct bytes *hid, unsigned int uid,
		       struct bytes *resources)
{
	uint8_t room[256];
	struct bytes device = { .at = room };

	add(resources, "\x79\0", 2); /* the end tag */
	add_text(&device, name);
	add_text(&device, "\x08_HID");
	add(&device, hid->at, hid->len);
	add_text(&device, "\x08_UID\x0a");
	add8(&device, uid);
	add_text(&device, "\x08_CRS\x11"); /* a buffer */
	add8(&device, (unsigned int)resources->len + 3);
	add8(&device, 0x0a);
	add8(&device, (unsigned int)resources->len);
	add(&device, resources->at, resources->len);
	add_text(scope, "\x5b\x82");
	add_package(scope, &device);
}

static void add_disk(struct bytes *scope, unsigned int i)
{
	uint8_t hid_room[] = "\x0dLNRO0005"; /* a string, with its NUL */
	const struct bytes hid = { hid_room, sizeof(hid_room) };
	const char name[] = { 'V', 'B', 'L', (char)('0' + i), '\0' };
	uint8_t room[64];
	struct bytes resources = { .at = room };

	add(&resources, "\x86\x09\0\x01", 4); /* Memory32Fixed, read-write */
	add32(&resources, (uint32_t)DISK_MMIO + KTVBLK_MMIO_SIZE * i);
	add32(&resources, KTVBLK_MMIO_SIZE);
	add_interrupt(&resources, DISK_GSI + i);
	add_device(scope, name, &hid, i, &resources);
}

static void add_serial(struct bytes *scope)
{
	uint8_t hid_room[] = { 0x0c, 0x41, 0xd0, 0x05, 0x01 }; /* PNP0501 */
	const struct bytes hid = { hid_room, sizeof(hid_room) };
	uint8_t room[64];
	struct bytes resources = { .at = room };

	add(&resources, "\x47\x01", 2); /* IO, 16 bits decoded */
	add16(&resources, SERIAL_PORT);
	add16(&resources, SERIAL_PORT);
	add8(&resources, 1);
	add8(&resources, SERIAL_PORTS);
	add_interrupt(&resources, SERIAL_GSI);
	add_device(scope, "COM1", &hid, 0, &resources);
}

static void build_dsdt(const struct vmm *vmm)
{
	/* Name (_S5, Package { 5, 0, 0, 0 }) */
	static const uint8_t s5[] = { 0x08, '_',  'S',	'5', '_', 0x12, 0x06,
				      0x04, 0x0a, 0x05, 0,   0,	  0 };
	struct bytes dsdt = begin(vmm, DSDT_ADDR, "DSDT", 2);
	uint8_t room[2048];
	struct bytes scope = { .at = room };

	add_text(&scope, "\\_SB_");
	add_serial(&scope);
	for (unsigned int i = 0; i < vmm->n_disks; i++)
		add_disk(&scope, i);
	add(&dsdt, s5, sizeof(s5));
	add8(&dsdt, 0x10);
	add_package(&dsdt, &scope);
	end(&dsdt);
}

/* A "generic address": a byte at an I/O port. */
static void set_port(uint8_t *at, uint16_t port)
{
	const uint8_t address[12] = {
		1, 8, 0, 1, (uint8_t)port, (uint8_t)(port >> 8)
	};

	memcpy(at, address, sizeof(address));
}

static void build_fadt(const struct vmm *vmm)
{
	struct bytes fadt = begin(vmm, FADT_ADDR, "FACP", 6);
	const uint32_t flags = 1u << 20 | 1u << 10; /* reduced; has reset */
	const uint64_t dsdt = DSDT_ADDR, facs = FACS_ADDR;

	memset(fadt.at + fadt.len, 0, FADT_LEN - fadt.len);
	fadt.len = FADT_LEN;
	memcpy(fadt.at + 112, &flags, sizeof(flags));
	set_port(fadt.at + 116, KEYBOARD_PORT);
	fadt.at[128] = 0xfe;
	memcpy(fadt.at + 132, &facs, sizeof(facs));
	memcpy(fadt.at + 140, &dsdt, sizeof(dsdt));
	set_port(fadt.at + 244, SLEEP_PORT);
	set_port(fadt.at + 256, SLEEP_PORT + 1);
	end(&fadt);
}

static void build_facs(const struct vmm *vmm)
{
	struct bytes facs = { .at = vmm->ram + FACS_ADDR };

	memset(facs.at, 0, FACS_LEN);
	add_text(&facs, "FACS");
	add32(&facs, FACS_LEN);
	facs.at[32] = 2; /* version */
}

static void build_madt(const struct vmm *vmm)
{
	static const uint8_t cpu[] = { 0, 8, 0, 0, 1, 0, 0, 0 };
	static const uint8_t io_apic[] = { 1,	 12,   1, 0, 0, 0,
					   0xc0, 0xfe, 0, 0, 0, 0 };
	struct bytes madt = begin(vmm, MADT_ADDR, "APIC", 4);

	add32(&madt, 0xfee00000); /* the local APIC */
	add32(&madt, 1);
	add(&madt, cpu, sizeof(cpu));
	add(&madt, io_apic, sizeof(io_apic));
	end(&madt);
}

static void build_xsdt(const struct vmm *vmm)
{
	struct bytes xsdt = begin(vmm, XSDT_ADDR, "XSDT", 1);

	add64(&xsdt, FADT_ADDR);
	add64(&xsdt, MADT_ADDR);
	end(&xsdt);
}

static void build_rsdp(const struct vmm *vmm)
{
	struct bytes rsdp = { .at = vmm->ram + RSDP_ADDR };

	add_text(&rsdp, "RSD PTR ");
	add8(&rsdp, 0);
	add_text(&rsdp, "KTVBLK");
	add8(&rsdp, 2);
	add32(&rsdp, 0);
	add32(&rsdp, 36);
	add64(&rsdp, XSDT_ADDR);
	add32(&rsdp, 0);
	set_checksum(rsdp.at, 20, 8);
	set_checksum(rsdp.at, 36, 32);
}

void acpi_build(const struct vmm *vmm)
{
	build_dsdt(vmm);
	build_facs(vmm);
	build_fadt(vmm);
	build_madt(vmm);
	build_xsdt(vmm);
	build_rsdp(vmm);
}
