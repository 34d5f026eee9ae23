/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See vmm.h. */

#include <fcntl.h>
#include <stdio.h>

#include "acpi.h"
#include "ask.h"
#include "boot.h"
#include "bus.h"
#include "machine.h"
#include "options.h"
#include "say.h"
#include "serial.h"
#include "snapshot.h"

static struct vmm vmm = { .vm_fd = -1 };

static enum end do_what_is_asked(const struct options *options)
{
	const unsigned int what = ask_taken();

	for (unsigned int i = 0; i < vmm.n_disks; i++)
		if (what & ASK_UNPLUG(i))
			bus_unplug(&vmm, i);
	if (what & ASK_SIZES)
		bus_look_at_sizes(&vmm);
	if (what & ASK_LIMITS)
		bus_switch_limits(&vmm);
	if (what & ASK_SAVE && options->save) {
		const enum end end = machine_settle(&vmm);

		if (end != RUNNING)
			return end;
		if (snapshot_save(&vmm, options->save))
			return SAVED;
	}
	return what & ASK_QUIT ? QUIT : RUNNING;
}

/* To go on where the file was saved; without one, to boot. */
static enum end start_and_run(const struct options *options, FILE *saved)
{
	enum end end;

	machine_on(&vmm);
	if (saved) {
		snapshot_restore(&vmm, saved);
	} else {
		acpi_build(&vmm);
		boot_load(&vmm, options->kernel, options->initrd,
			  options->cmdline);
		boot_cpu(&vmm);
	}
	do {
		end = do_what_is_asked(options);
		if (end == RUNNING)
			end = machine_run(&vmm);
	} while (end == RUNNING);
	machine_off(&vmm);
	return end;
}

int main(int argc, char **argv)
{
	static const char *const ends[] = { [POWER_OFF] = "power-off",
					    [REBOOT] = "reboot, no --kernel",
					    [TRIPLE_FAULT] = "triple fault",
					    [QUIT] = "asked to end",
					    [SAVED] = "saved" };
	const struct options options = options_parse(argc, argv, &vmm);
	uint64_t ram_size = options.memory_mib << 20;
	struct ktvblk_mem *mem;
	FILE *saved = NULL;
	enum end end;

	if (options.restore)
		saved = snapshot_open(options.restore, &ram_size);
	ask_start();
	vmm.kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (vmm.kvm_fd < 0)
		fail("/dev/kvm");
	mem = machine_memory(&vmm, ram_size);
	bus_open(&vmm, mem);
	serial_start();
	while ((end = start_and_run(&options, saved)) == REBOOT &&
	       options.kernel) {
		bus_reset(&vmm);
		saved = NULL;
	}
	bus_close(&vmm);
	ktvblk_mem_unref(mem); /* a disk left behind has a reference as well */
	ktvblk_log_flush(1000);
	fprintf(stderr, "ktvblk-vmm: end of the guest: %s\n", ends[end]);
	return vmm.left_behind;
}
