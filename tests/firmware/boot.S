/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A boot sector for a BIOS: it copies the first half of the disk it came from,
 * itself included, to the second half by int 13h, reads that back and compares.
 * It speaks on the first serial port, then has the machine reset.
 */

#define HALF (8 << 20 >> 9) /* sectors */
#define CHUNK 64 /* sectors: 32 KiB, half a segment */
#define FROM 0x1000 /* segments */
#define BACK 0x2000

#define READ 0x42
#define WRITE 0x43

#define COM1 0x3f8
#define COM1_STATUS (COM1 + 5)
#define MAY_SEND 0x20

	.code16
	.text
	.globl	start
start:
	ljmp	$0, $here
here:
	xorw	%ax, %ax
	movw	%ax, %ds
	movw	%ax, %ss
	movw	$start, %sp
	movb	%dl, drive
	cld
	movw	$booted, %si
	call	print

next_chunk:
	movw	$FROM, segment
	movb	$READ, %ah
	call	disk
	addl	$HALF, sector
	movb	$WRITE, %ah
	call	disk
	movw	$BACK, segment
	movb	$READ, %ah
	call	disk

	movw	$FROM, %ax
	movw	%ax, %ds
	movw	$BACK, %ax
	movw	%ax, %es
	xorw	%si, %si
	xorw	%di, %di
	movw	$(CHUNK * 512 / 4), %cx
	repe cmpsl
	movw	%cs, %ax
	movw	%ax, %ds
	movw	$differs, %si
	jne	failed

	subl	$(HALF - CHUNK), sector
	cmpl	$HALF, sector
	jb	next_chunk
	movw	$copied, %si
	jmp	end

/* int 13h, function %ah, for what the packet says. */
disk:
	xorb	%al, %al
	movb	drive, %dl
	movw	$packet, %si
	int	$0x13
	movw	$refused, %si
	jc	failed
	ret

failed:
	call	print
	movw	$failure, %si
end:
	call	print
	/* No interrupt can be taken, this one neither. */
	lidt	nothing
	int3

/* The string at %si. */
print:
	lodsb
	testb	%al, %al
	jz	2f
	movb	%al, %bl
	movw	$COM1_STATUS, %dx
1:	inb	%dx, %al
	testb	$MAY_SEND, %al
	jz	1b
	movb	%bl, %al
	movw	$COM1, %dx
	outb	%al, %dx
	jmp	print
2:	ret

booted:		.asciz "\r\n@@ ok 0 boot\r\n"
copied:		.asciz "@@ ok 0 copy\r\n"
differs:	.asciz "@@ | not what was written\r\n"
refused:	.asciz "@@ | int 13h failed\r\n"
failure:	.asciz "@@ FAIL 0 copy\r\n"
drive:		.byte 0
nothing:	.word 0, 0, 0

packet:
	.byte	16, 0
	.word	CHUNK
	.word	0
segment:
	.word	0
sector:
	.quad	0

	.org	510
	.word	0xaa55
