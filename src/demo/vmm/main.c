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

static struct vmm vmm = { .vm_fd = -1 };

static enum end do_what_is_asked(void)
{
	const unsigned int what = ask_taken();

	for (unsigned int i = 0; i < vmm.n_disks; i++)
		if (what & ASK_UNPLUG(i))
			bus_unplug(&vmm, i);
	if (what & ASK_SIZES)
		bus_look_at_sizes(&vmm);
	if (what & ASK_LIMITS)
		bus_switch_limits(&vmm);
	return what & ASK_QUIT ? QUIT : RUNNING;
}

static enum end boot_and_run(const struct options *options)
{
	enum end end;

	machine_on(&vmm);
	acpi_build(&vmm);
	boot_load(&vmm, options->kernel, options->initrd, options->cmdline);
	boot_cpu(&vmm);
	do {
		end = do_what_is_asked();
		if (end == RUNNING)
			end = machine_run(&vmm);
	} while (end == RUNNING);
	machine_off(&vmm);
	return end;
}

int main(int argc, char **argv)
{
	static const char *const ends[] = { [POWER_OFF] = "power-off",
					    [TRIPLE_FAULT] = "triple fault",
					    [QUIT] = "asked to end" };
	const struct options options = options_parse(argc, argv, &vmm);
	struct ktvblk_mem *mem;
	enum end end;

	ask_start();
	vmm.kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (vmm.kvm_fd < 0)
		fail("/dev/kvm");
	mem = machine_memory(&vmm, options.memory_mib << 20);
	bus_open(&vmm, mem);
	serial_start();
	while ((end = boot_and_run(&options)) == REBOOT)
		bus_reset(&vmm);
	bus_close(&vmm);
	ktvblk_mem_unref(mem); /* a disk left behind has a reference as well */
	ktvblk_log_flush(1000);
	fprintf(stderr, "ktvblk-vmm: end of the guest: %s\n", ends[end]);
	return vmm.left_behind;
}
