/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A 16450 as far as a Linux console asks: it sends at once, and receives what
 * a thread reads from standard input. Its registers are used by both threads.
 */

#include <linux/serial_reg.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "ask.h"
#include "file.h"
#include "layout.h"
#include "say.h"
#include "serial.h"

#define INPUT_BYTES 256u
#define CTRL_A 1

/* What a saved machine has of it. */
struct state {
	uint8_t regs[SERIAL_PORTS];
	uint8_t divisor[2];
	bool sent; /* since the guest last heard of it */
	uint8_t input[INPUT_BYTES];
	unsigned int head, tail; /* tail to head are what is there */
};

static struct {
	pthread_mutex_t lock;
	int vm_fd;
	struct state now;
} serial = { .lock = PTHREAD_MUTEX_INITIALIZER, .vm_fd = -1 };

static struct termios terminal;

static bool has_input(void)
{
	return serial.now.head != serial.now.tail;
}

/* The first two registers are then the divisor. */
static bool is_divisor(unsigned int reg)
{
	return reg < 2 && serial.now.regs[UART_LCR] & UART_LCR_DLAB;
}

/* Why there is an interrupt, as IIR says it. */
static uint8_t cause(void)
{
	if (serial.now.regs[UART_IER] & UART_IER_RDI && has_input())
		return UART_IIR_RDI;
	if (serial.now.regs[UART_IER] & UART_IER_THRI && serial.now.sent)
		return UART_IIR_THRI;
	return UART_IIR_NO_INT;
}

static void update_irq(void)
{
	struct kvm_irq_level irq = { .irq = SERIAL_GSI,
				     .level = cause() != UART_IIR_NO_INT };

	if (serial.vm_fd >= 0 && ioctl(serial.vm_fd, KVM_IRQ_LINE, &irq) < 0)
		fail("KVM_IRQ_LINE");
}

static uint8_t read_locked(unsigned int reg)
{
	uint8_t value;

	if (is_divisor(reg))
		return serial.now.divisor[reg];
	switch (reg) {
	case UART_RX:
		return has_input()
			       ? serial.now
					 .input[serial.now.tail++ % INPUT_BYTES]
			       : 0;
	case UART_IIR:
		value = cause();
		if (value == UART_IIR_THRI)
			serial.now.sent = false;
		return value;
	case UART_LSR:
		return UART_LSR_TEMT | UART_LSR_THRE |
		       (has_input() ? UART_LSR_DR : 0);
	case UART_MSR:
		return UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS;
	default:
		return serial.now.regs[reg];
	}
}

uint8_t serial_read(unsigned int reg)
{
	uint8_t value;

	pthread_mutex_lock(&serial.lock);
	value = read_locked(reg);
	update_irq();
	pthread_mutex_unlock(&serial.lock);
	return value;
}

static void write_locked(unsigned int reg, uint8_t value)
{
	if (is_divisor(reg)) {
		serial.now.divisor[reg] = value;
		return;
	}
	if (reg == UART_TX) {
		/* There is nobody to tell of an error. */
		(void)!write(STDOUT_FILENO, &value, 1);
		serial.now.sent = true;
	}
	if (reg == UART_IER) {
		value &= 0xf;
		serial.now.sent |= value & ~serial.now.regs[reg] &
				   UART_IER_THRI;
	}
	serial.now.regs[reg] = value;
}

void serial_write(unsigned int reg, uint8_t value)
{
	pthread_mutex_lock(&serial.lock);
	write_locked(reg, value);
	update_irq();
	pthread_mutex_unlock(&serial.lock);
}

void serial_connect(int vm_fd)
{
	pthread_mutex_lock(&serial.lock);
	serial.vm_fd = vm_fd;
	memset(serial.now.regs, 0, sizeof(serial.now.regs));
	pthread_mutex_unlock(&serial.lock);
}

void serial_save(FILE *file)
{
	pthread_mutex_lock(&serial.lock);
	file_write(file, &serial.now, sizeof(serial.now));
	pthread_mutex_unlock(&serial.lock);
}

/* What does not fit is lost, as on a line without flow control. */
static void receive_locked(uint8_t byte)
{
	if (serial.now.head - serial.now.tail < INPUT_BYTES)
		serial.now.input[serial.now.head++ % INPUT_BYTES] = byte;
}

/* Some may have been typed here before. */
void serial_restore(FILE *file)
{
	struct state here;

	pthread_mutex_lock(&serial.lock);
	here = serial.now;
	file_read(file, &serial.now, sizeof(serial.now));
	while (here.tail != here.head)
		receive_locked(here.input[here.tail++ % INPUT_BYTES]);
	update_irq();
	pthread_mutex_unlock(&serial.lock);
}

static void receive(uint8_t byte)
{
	pthread_mutex_lock(&serial.lock);
	receive_locked(byte);
	update_irq();
	pthread_mutex_unlock(&serial.lock);
}

static void escape(uint8_t byte)
{
	if (byte == 'x')
		ask_for(ASK_QUIT);
	else if (byte == 'r')
		ask_for(ASK_SIZES);
	else if (byte == 'l')
		ask_for(ASK_LIMITS);
	else if (byte >= '0' && byte < '0' + BUS_SLOTS)
		ask_for(ASK_UNPLUG(byte - '0'));
	else if (byte == CTRL_A)
		receive(byte);
}

static void *input_main(void *unused)
{
	bool escaped = false;
	uint8_t byte;

	(void)unused;
	while (read(STDIN_FILENO, &byte, 1) == 1) {
		if (escaped)
			escape(byte);
		else if (byte != CTRL_A)
			receive(byte);
		escaped = !escaped && byte == CTRL_A;
	}
	return NULL;
}

static void restore_terminal(void)
{
	tcsetattr(STDIN_FILENO, TCSANOW, &terminal);
}

static void take_terminal(void)
{
	struct termios raw;

	if (tcgetattr(STDIN_FILENO, &terminal) < 0)
		return;
	atexit(restore_terminal);
	raw = terminal;
	cfmakeraw(&raw);
	raw.c_oflag |= OPOST;
	tcsetattr(STDIN_FILENO, TCSANOW, &raw);
}

void serial_start(void)
{
	sigset_t all, before;
	pthread_t thread;

	take_terminal();
	/* Signals are for the main thread. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	if (pthread_create(&thread, NULL, input_main, NULL))
		give_up("no thread for the console");
	pthread_detach(thread);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}
