/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * header | CPU and chips | console | disks | pages of memory that are not zero
 *
 * The disks are paused first, and go on last: in between they do not touch the
 * guest's memory. Chips come before disks, as an interrupt that a disk raises
 * again, as its driver has not acknowledged it, is not for a chip at reset.
 */

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bus.h"
#include "cpu.h"
#include "file.h"
#include "say.h"
#include "serial.h"
#include "snapshot.h"

#define MAGIC UINT64_C(0x316d6d766b6c6276)
#define PAGE 4096u
#define NO_PAGE UINT64_MAX /* behind the last */

struct header {
	uint64_t magic;
	uint64_t ram_size;
	uint64_t n_disks;
};

static bool is_zero(const uint8_t *page)
{
	return page[0] == 0 && memcmp(page, page + 1, PAGE - 1) == 0;
}

static void save_memory(const struct vmm *vmm, FILE *file)
{
	uint64_t addr;

	for (addr = 0; addr < vmm->ram_size; addr += PAGE) {
		if (is_zero(vmm->ram + addr))
			continue;
		file_write(file, &addr, sizeof(addr));
		file_write(file, vmm->ram + addr, PAGE);
	}
	addr = NO_PAGE;
	file_write(file, &addr, sizeof(addr));
}

static void restore_memory(const struct vmm *vmm, FILE *file)
{
	uint64_t addr;

	for (;;) {
		file_read(file, &addr, sizeof(addr));
		if (addr == NO_PAGE)
			return;
		if (addr % PAGE || addr > vmm->ram_size - PAGE)
			give_up("no such page is in memory");
		file_read(file, vmm->ram + addr, PAGE);
	}
}

static bool write_all(const struct vmm *vmm, FILE *file)
{
	const struct header header = { MAGIC, vmm->ram_size, vmm->n_disks };

	file_write(file, &header, sizeof(header));
	cpu_save(vmm, file);
	serial_save(file);
	if (!bus_save(vmm, file))
		return false;
	save_memory(vmm, file);
	return true;
}

/* Under another name first: what is there is whole. */
bool snapshot_save(const struct vmm *vmm, const char *path)
{
	char temporary[4096];
	FILE *file;
	bool ok;

	snprintf(temporary, sizeof(temporary), "%s.new", path);
	if (!bus_pause(vmm))
		return false;
	file = fopen(temporary, "we");
	ok = file && write_all(vmm, file);
	if (file)
		ok &= fflush(file) == 0 && fsync(fileno(file)) == 0;
	if (file)
		ok &= fclose(file) == 0;
	ok = ok && rename(temporary, path) == 0;
	if (ok)
		return true;
	fprintf(stderr, "ktvblk-vmm: not saved: %s: %s\n", path,
		strerror(errno));
	unlink(temporary);
	bus_resume(vmm);
	return false;
}

FILE *snapshot_open(const char *path, uint64_t *ret_ram_size)
{
	FILE *file = fopen(path, "re");
	struct header header;

	if (!file)
		fail(path);
	file_read(file, &header, sizeof(header));
	if (header.magic != MAGIC || header.ram_size % PAGE ||
	    header.ram_size < (uint64_t)MEMORY_MIN_MIB << 20 ||
	    header.ram_size > (uint64_t)MEMORY_MAX_MIB << 20)
		give_up("%s is no saved machine", path);
	*ret_ram_size = header.ram_size;
	rewind(file);
	return file;
}

void snapshot_restore(struct vmm *vmm, FILE *file)
{
	struct header header;

	file_read(file, &header, sizeof(header));
	if (header.n_disks != vmm->n_disks)
		give_up("the saved machine has %u disks",
			(unsigned int)header.n_disks);
	cpu_restore(vmm, file);
	serial_restore(file);
	bus_restore(vmm, file);
	restore_memory(vmm, file);
	fclose(file);
	bus_resume(vmm);
}
