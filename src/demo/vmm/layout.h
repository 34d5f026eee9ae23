/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef VMM_LAYOUT_H
#define VMM_LAYOUT_H

/* Where things are in the guest's memory, and above it. */
#define GDT_ADDR 0x500u
#define BOOT_PARAMS_ADDR 0x7000u
#define PAGE_TABLES_ADDR 0x9000u
#define CMDLINE_ADDR 0x20000u
#define CMDLINE_MAX 2048
#define ACPI_ADDR 0xe0000u
#define ACPI_END 0x100000u
#define MEMORY_MIN_MIB 64
#define MEMORY_MAX_MIB 3072
#define BUS_ADDR UINT64_C(0xd0000000) /* each disk has a window of its own */
#define BUS_GSI 16 /* the first disk's interrupt */
#define BUS_SLOTS 8

/* Ports. */
#define SERIAL_PORT 0x3f8
#define SERIAL_PORTS 8
#define SERIAL_GSI 4
#define RESET_PORT 0x64
#define RESET_VALUE 0xfe
#define SLEEP_PORT 0x600
#define SLEEP_ENABLE 0x20

#endif
