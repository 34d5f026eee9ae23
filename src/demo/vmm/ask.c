/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>

#include "ask.h"

static pthread_t main_thread;
static _Atomic unsigned int asked;
static struct kvm_run *volatile cpu;

/*
 * The main thread leaves KVM_RUN for a signal; immediate_exit is for one that
 * comes just before. SIGUSR1 is ask_for()'s, the others are the user's.
 */
static void on_signal(int signal)
{
	if (signal == SIGUSR2)
		atomic_fetch_or(&asked, ASK_SAVE);
	else if (signal != SIGUSR1)
		atomic_fetch_or(&asked, ASK_QUIT);
	if (cpu)
		cpu->immediate_exit = 1;
}

void ask_start(void)
{
	static const int signals[] = { SIGUSR1, SIGUSR2, SIGINT, SIGTERM,
				       SIGHUP };
	const struct sigaction action = { .sa_handler = on_signal };

	main_thread = pthread_self();
	for (size_t i = 0; i < sizeof(signals) / sizeof(*signals); i++)
		sigaction(signals[i], &action, NULL);
}

void ask_for(unsigned int what)
{
	atomic_fetch_or(&asked, what);
	pthread_kill(main_thread, SIGUSR1);
}

void ask_interrupts(struct kvm_run *run)
{
	cpu = run;
}

unsigned int ask_taken(void)
{
	cpu->immediate_exit = 0; /* what is asked from now on sets it */
	return atomic_exchange(&asked, 0);
}
