/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The guest's first bytes. ring3.c starts it at guest_start, and puts two
 * interrupts at 16 and 32 bytes behind that; they are all that runs in ring 0.
 */

	.section .text.start, "ax"
	.globl guest_start
guest_start:
	call	guest_main
1:	jmp	1b

	.macro	interrupt counter
	push	%rax
	push	%rcx
	push	%rdx
	incl	\counter(%rip)
	jmp	end_of_interrupt
	.endm

	.org	16
	interrupt interrupts
	.org	32
	interrupt interrupts + 4

end_of_interrupt:
	mov	$0x80b, %ecx	/* the x2APIC's EOI register */
	xor	%eax, %eax
	xor	%edx, %edx
	wrmsr
	pop	%rdx
	pop	%rcx
	pop	%rax
	iretq

	.data
	.balign	8
	.globl	interrupts
interrupts:
	.long	0, 0

	.section .note.GNU-stack, "", @progbits
