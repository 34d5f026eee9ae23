/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * ktvblk-kvm.h against a KVM that notes what it is asked and may refuse it. A
 * real one is in tests/guest/ring3.c.
 */

/* wrap: ioctl */

#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "harness.h"
#include "rig.h"

#if __has_include(<linux/kvm.h>)

#include "ktvblk-kvm.h"

#define VM_FD 1234
#define BASE UINT64_C(0xd0001000)
#define GSI 17u

/* What is bound, and how often KVM was asked. */
static struct kvm_ioeventfd kicks[4];
static unsigned int n_kicks;
static struct kvm_irqfd irq;
static bool has_irq;
static unsigned int calls;
static unsigned long refused; /* this request... */
static int refusal; /* ...fails so */
static unsigned int room = 4; /* for kicks */

int __real_ioctl(int fd, unsigned long request, ...);
int __wrap_ioctl(int fd, unsigned long request, ...);

static int refuse(int error)
{
	errno = error;
	return -1;
}

static int set_kick(const struct kvm_ioeventfd *asked)
{
	const struct kvm_ioeventfd same = {
		.addr = asked->addr,
		.len = asked->len,
		.datamatch = asked->datamatch,
		.fd = asked->fd,
		.flags = asked->flags & ~(uint32_t)KVM_IOEVENTFD_FLAG_DEASSIGN,
	};

	ck_assert_mem_eq(asked->pad, same.pad, sizeof(same.pad));
	if (!(asked->flags & KVM_IOEVENTFD_FLAG_DEASSIGN)) {
		for (unsigned int i = 0; i < n_kicks; i++)
			if (kicks[i].addr == same.addr &&
			    kicks[i].datamatch == same.datamatch)
				return refuse(EEXIST);
		if (n_kicks == room)
			return refuse(ENOSPC);
		kicks[n_kicks++] = same;
		return 0;
	}
	for (unsigned int i = 0; i < n_kicks; i++)
		if (memcmp(&kicks[i], &same, sizeof(same)) == 0) {
			kicks[i] = kicks[--n_kicks];
			return 0;
		}
	return refuse(ENOENT);
}

static int set_irq(const struct kvm_irqfd *asked)
{
	ck_assert_uint_eq(asked->resamplefd, 0);
	if (!(asked->flags & KVM_IRQFD_FLAG_DEASSIGN)) {
		if (has_irq)
			return refuse(EBUSY);
		irq = *asked;
		has_irq = true;
	} else if (has_irq && irq.fd == asked->fd && irq.gsi == asked->gsi) {
		has_irq = false;
	}
	return 0;
}

int __wrap_ioctl(int fd, unsigned long request, ...)
{
	const void *arg;
	va_list args;

	va_start(args, request);
	arg = va_arg(args, const void *);
	va_end(args);
	if (fd != VM_FD)
		return __real_ioctl(fd, request, arg);
	calls++;
	if (request == refused)
		return refuse(refusal);
	switch (request) {
	case KVM_IOEVENTFD:
		return set_kick((const struct kvm_ioeventfd *)arg);
	case KVM_IRQFD:
		return set_irq((const struct kvm_irqfd *)arg);
	default:
		return refuse(ENOTTY);
	}
}

static struct rig rig;

static void setup(uint32_t n_queues)
{
	has_irq = false;
	n_kicks = calls = 0;
	room = 4;
	refused = 0;
	rig_open(&rig, &(struct rig_options){ .config.n_queues = n_queues });
}

START_TEST(a_bind_binds_kick_and_irq_and_an_unbind_takes_both_off)
{
	setup(1);
	ck_assert_int_eq(ktvblk_kvm_bind(rig.dev, VM_FD, BASE, GSI), 0);
	ck_assert(n_kicks && has_irq);
	ck_assert_uint_eq(kicks[0].addr, BASE + KTVBLK_MMIO_QUEUE_NOTIFY);
	ck_assert_uint_eq(kicks[0].len, 4);
	ck_assert_uint_eq(kicks[0].flags, KVM_IOEVENTFD_FLAG_DATAMATCH);
	ck_assert_uint_eq(kicks[0].datamatch, 0);
	ck_assert_int_eq(kicks[0].fd, ktvblk_kick_fd(rig.dev));
	ck_assert_uint_eq(irq.gsi, GSI);
	ck_assert_int_eq((int)irq.fd, ktvblk_irq_fd(rig.dev));
	ck_assert_int_eq(ktvblk_kvm_unbind(rig.dev, VM_FD, BASE, GSI), 0);
	ck_assert(!n_kicks && !has_irq);
	/* So it can be bound again. */
	ck_assert_int_eq(ktvblk_kvm_bind(rig.dev, VM_FD, BASE, GSI), 0);
	rig_close(&rig);
}
END_TEST

START_TEST(a_bind_that_fails_halfway_binds_nothing)
{
	setup(1);
	refused = KVM_IRQFD;
	refusal = ENOSPC;
	ck_assert_int_eq(ktvblk_kvm_bind(rig.dev, VM_FD, BASE, GSI), -ENOSPC);
	ck_assert(!n_kicks && !has_irq);
	refused = KVM_IOEVENTFD;
	refusal = ENOSPC;
	calls = 0;
	ck_assert_int_eq(ktvblk_kvm_bind(rig.dev, VM_FD, BASE, GSI), -ENOSPC);
	ck_assert(!n_kicks && !has_irq);
	ck_assert_uint_eq(calls, 1);
	rig_close(&rig);
}
END_TEST

START_TEST(each_queue_has_an_ioeventfd_or_none_has)
{
	setup(4);
	ck_assert_int_eq(ktvblk_kvm_bind(rig.dev, VM_FD, BASE, GSI), 0);
	ck_assert_uint_eq(n_kicks, 4);
	for (uint32_t i = 0; i < 4; i++) {
		ck_assert_uint_eq(kicks[i].datamatch, i);
		ck_assert_uint_eq(kicks[i].addr,
				  BASE + KTVBLK_MMIO_QUEUE_NOTIFY);
		ck_assert_int_eq(kicks[i].fd, ktvblk_queue_kick_fd(rig.dev, i));
	}
	ck_assert_int_eq(ktvblk_kvm_unbind(rig.dev, VM_FD, BASE, GSI), 0);
	ck_assert(!n_kicks && !has_irq);
	room = 3;
	ck_assert_int_eq(ktvblk_kvm_bind(rig.dev, VM_FD, BASE, GSI), -ENOSPC);
	ck_assert(!n_kicks && !has_irq);
	room = 4;
	refused = KVM_IRQFD;
	refusal = EBUSY;
	ck_assert_int_eq(ktvblk_kvm_bind(rig.dev, VM_FD, BASE, GSI), -EBUSY);
	ck_assert(!n_kicks && !has_irq);
	rig_close(&rig);
}
END_TEST

START_TEST(a_second_bind_is_refused_and_the_first_stays)
{
	setup(1);
	ck_assert_int_eq(ktvblk_kvm_bind(rig.dev, VM_FD, BASE, GSI), 0);
	ck_assert_int_eq(ktvblk_kvm_bind(rig.dev, VM_FD, BASE, GSI), -EEXIST);
	ck_assert(n_kicks && has_irq);
	rig_close(&rig);
}
END_TEST

START_TEST(an_unbind_takes_off_what_it_can)
{
	setup(1);
	ck_assert_int_eq(ktvblk_kvm_unbind(rig.dev, VM_FD, BASE, GSI), -ENOENT);
	ck_assert_int_eq(ktvblk_kvm_bind(rig.dev, VM_FD, BASE, GSI), 0);
	refused = KVM_IOEVENTFD;
	refusal = EFAULT;
	ck_assert_int_eq(ktvblk_kvm_unbind(rig.dev, VM_FD, BASE, GSI), -EFAULT);
	ck_assert(n_kicks && !has_irq);
	refused = KVM_IRQFD;
	ck_assert_int_eq(ktvblk_kvm_unbind(rig.dev, VM_FD, BASE, GSI), -EFAULT);
	ck_assert(!n_kicks);
	rig_close(&rig);
}
END_TEST

START_TEST(bad_arguments_bind_nothing)
{
	setup(1);
	ck_assert_int_eq(ktvblk_kvm_bind(NULL, VM_FD, BASE, GSI), -EINVAL);
	ck_assert_int_eq(ktvblk_kvm_unbind(NULL, VM_FD, BASE, GSI), -EINVAL);
	ck_assert_uint_eq(calls, 0);
	ck_assert_int_eq(ktvblk_kvm_bind(rig.dev, -1, BASE, GSI), -EBADF);
	ck_assert_int_eq(ktvblk_kvm_unbind(rig.dev, -1, BASE, GSI), -EBADF);
	/* Not a virtual machine. */
	ck_assert_int_eq(ktvblk_kvm_bind(rig.dev, ktvblk_kick_fd(rig.dev), BASE,
					 GSI),
			 -ENOTTY);
	rig_close(&rig);
}
END_TEST

TEST_PROGRAM("kvm", a_bind_binds_kick_and_irq_and_an_unbind_takes_both_off,
	     a_bind_that_fails_halfway_binds_nothing,
	     each_queue_has_an_ioeventfd_or_none_has,
	     a_second_bind_is_refused_and_the_first_stays,
	     an_unbind_takes_off_what_it_can, bad_arguments_bind_nothing)

#else

/* Skipped: this machine's kernel has no KVM. */
int main(void)
{
	return 77;
}

#endif
