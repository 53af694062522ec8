/* The BIOS part of a single-file artifact: a PXE network boot program that carries a Linux-like kernel (ipxe.lkrn) and
 * its initrd (a script) behind itself. It checks that all of itself arrived, shuts PXE down, copies kernel and initrd
 * above 1 MB and starts the kernel by the Linux boot protocol. What goes wrong is said on the console; then INT 18h
 * lets the firmware try its next boot device.
 *
 * Loaded at 0000:7c00 (PXE 2.1, 4.4.5). There SS:SP+4 is the far address of !PXE and ES:BX that of PXENV+.
 * The packer (bios.go) fills in the header and appends the data from 0x500 on. */
	.code16
	.text
	.globl	_start
_start:	jmp	start
	.org	4
	.ascii	"nestboot 1\n\0"	/* how a reader knows this layout */
kernel:	.long	0, 0, 0			/* linear source, linear destination, bytes */
initrd:	.long	0, 0, 0			/* the same */
seg:	.word	0			/* real-mode segment of the kernel's first sector */
paras:	.word	0			/* size of the file in units of 16 bytes */
sum:	.long	0			/* makes all 32-bit words of the file add up to 0 */

start:	cld
	movw	%sp, %bp
	movl	%ss:4(%bp), %eax
	xorw	%cx, %cx
	movw	%cx, %ds
	movw	%cx, %ss
	movw	$_start, %sp
	ljmp	$0, $flat		/* some ROMs enter at 07c0:0000 */
flat:	sti
	pushl	%eax			/* !PXE */
	pushw	%es			/* PXENV+ */
	pushw	%bx

/* Before anything here changes: some ROMs end a long transfer early without an error. */
	movw	paras, %cx
	movw	$0x7c00 / 16, %dx
	xorl	%eax, %eax
1:	movw	%dx, %es
	addl	%es:0, %eax
	addl	%es:4, %eax
	addl	%es:8, %eax
	addl	%es:12, %eax
	incw	%dx
	loop	1b
	movw	$damaged, %si
	testl	%eax, %eax
	jnz	fail

/* dx is the end of the file. The ROM keeps itself above what INT 12h reports, in KB. */
	int	$0x12
	shlw	$6, %ax
	movw	$lowmem, %si
	cmpw	%dx, %ax
	jb	fail

	movw	$kernel, %bp
	call	memory
	movw	$initrd, %bp
	call	memory

/* Find an entry point: !PXE from the stack, else PXENV+ from ES:BX, else PXENV+ from INT 1Ah. PXENV+ 2.1 and later
 * leads to !PXE; older ROMs have only the entry point in PXENV+ itself. */
	popw	%bx
	popw	%es
	popl	%eax
	call	bang
	je	found
	call	env
	je	1f
	movw	$0x5650, %ax
	int	$0x1a
	jc	2f
	cmpw	$0x564e, %ax
	jne	2f
	call	env
	jne	2f
1:	movl	%es:0x0a(%bx), %edx	/* RMEntry */
	movl	%edx, entry
	cmpw	$0x0201, %es:6(%bx)	/* Version */
	jb	found
	movl	%es:0x28(%bx), %eax	/* PXEPtr */
	call	bang
	jmp	found
2:	movw	$nopxe, %si
	call	print
	jmp	load

found:	movw	$0x05, %ax		/* UNDI_SHUTDOWN */
	call	pxe
	testw	%ax, %ax
	jz	1f
	movw	$busy, %si
	call	print
	movw	param, %ax
	call	hex
1:	movw	$0x70, %ax		/* UNLOAD_STACK; not every ROM has it, and it does not matter */
	call	pxe
	movw	$0x15, %ax		/* STOP_UNDI; nor here */
	call	pxe

load:	movw	$kernel, %bp
	call	copy
	movw	$initrd, %bp
	call	copy
	movw	$begin, %si
	call	print
	cli
	movw	seg, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %fs
	movw	%ax, %gs
	movw	%ax, %ss
	movw	$0xfff0, %sp
	addw	$0x20, %ax
	pushw	%ax
	pushw	$0
	lretw

/* Is there a !PXE at the far address eax? Then its entry point is taken and Z is set. Keeps es and bx. */
bang:	pushw	%es
	pushw	%bx
	pushl	%eax
	popw	%bx
	popw	%es
	cmpl	$0x45585021, %es:(%bx)	/* "!PXE" */
	jne	1f
	movl	%es:0x10(%bx), %edx	/* EntryPointSP */
	movl	%edx, entry
1:	popw	%bx
	popw	%es
	ret

/* Is there a PXENV+ at es:bx? Sets Z. */
env:	cmpl	$0x4e455850, %es:(%bx)	/* "PXEN" */
	jne	1f
	cmpw	$0x2b56, %es:4(%bx)	/* "V+" */
1:	ret

/* Call the PXE function in ax with an empty parameter block, in the manner of !PXE (on the stack) and in that of
 * PXENV+ (registers) at once. Returns its ax; the status is the first word of param. */
pxe:	movw	%ax, %bx
	xorw	%ax, %ax
	movw	%ax, %es
	movw	$param, %di
	movw	$8, %cx
	rep stosw
	movw	$param, %di
	pushw	%ds
	pushw	%di
	pushw	%bx
	lcall	*entry
	addw	$6, %sp
	xorw	%cx, %cx
	movw	%cx, %ds
	cld
	ret

/* Fail unless the firmware's memory map has the destination of the table entry at bp in one piece of usable memory. */
memory:	xorl	%ebx, %ebx
1:	xorw	%ax, %ax
	movw	%ax, %es
	movw	$range, %di
	movl	$0xe820, %eax
	movl	$0x534d4150, %edx	/* "SMAP" */
	movl	$20, %ecx
	int	$0x15
	movw	$nomem, %si
	jc	fail			/* the map ended, or there is none */
	cmpl	$1, range + 16		/* usable */
	jne	2f
	cmpl	$0, range + 4
	jne	2f
	movl	4(%bp), %eax
	subl	range, %eax		/* from the start of the range to the destination */
	jb	2f
	cmpl	$0, range + 12
	jne	3f
	addl	8(%bp), %eax
	cmpl	%eax, range + 8
	jae	3f
2:	testl	%ebx, %ebx
	jnz	1b
	jmp	fail
3:	ret

/* Copy one table entry (0(bp) to 4(bp), 8(bp) bytes) through INT 15h, AH=87h, which also opens the A20 gate. */
copy:	movl	8(%bp), %ecx
	testl	%ecx, %ecx
	jz	2f
	cmpl	$0x8000, %ecx
	jbe	1f
	movl	$0x8000, %ecx
1:	movl	0(%bp), %eax
	movw	$gdt + 0x10, %di
	call	base
	movl	4(%bp), %eax
	movw	$gdt + 0x18, %di
	call	base
	addl	%ecx, 0(%bp)
	addl	%ecx, 4(%bp)
	subl	%ecx, 8(%bp)
	incw	%cx
	shrw	$1, %cx
	xorw	%ax, %ax
	movw	%ax, %es
	movw	$gdt, %si
	movb	$0x87, %ah
	pushw	%bp
	int	$0x15
	popw	%bp
	jnc	copy
	movw	$nocopy, %si
	pushw	%ax
	call	print
	popw	%ax
	call	hex			/* AH: 1 parity, 2 exception, 3 A20 */
	jmp	end
2:	ret

/* Make the descriptor at di one of 64 KB at linear eax. */
base:	movw	$0xffff, (%di)
	movl	%eax, 2(%di)
	movb	$0x93, 5(%di)
	movb	$0, 6(%di)
	shrl	$24, %eax
	movb	%al, 7(%di)
	ret

/* Print the text at si behind our name. */
print:	pushw	%si
	movw	$name, %si
	call	1f
	popw	%si
1:	lodsb
	testb	%al, %al
	jz	2f
	call	putc
	jmp	1b
2:	ret

/* Print ax in four digits, and end the line. */
hex:	movw	$4, %cx
1:	rolw	$4, %ax
	pushw	%ax
	andb	$0x0f, %al
	addb	$'0', %al
	cmpb	$'9', %al
	jbe	2f
	addb	$'a' - '9' - 1, %al
2:	call	putc
	popw	%ax
	loop	1b
	movb	$'\r', %al
	call	putc
	movb	$'\n', %al

putc:	pushaw				/* some video BIOSes change bp */
	movb	$0x0e, %ah
	movw	$7, %bx
	int	$0x10
	popaw
	ret

/* Say what is wrong (si), leave it on the screen for 10 s and go on to the next boot device. */
fail:	call	print
end:	movb	$0x86, %ah
	movw	$10000000 >> 16, %cx
	movw	$10000000 & 0xffff, %dx
	int	$0x15
	int	$0x18
1:	hlt
	jmp	1b

name:	.asciz	"nestboot: "
damaged:.asciz	"boot file is cut short or damaged; use the pxelinux directory\r\n"
lowmem:	.asciz	"boot file is too large for this ROM; use the pxelinux directory\r\n"
nomem:	.asciz	"no usable memory at 64 MB; this file needs 128 MB\r\n"
nopxe:	.asciz	"no PXE found to shut down, going on\r\n"
busy:	.asciz	"PXE did not shut down, going on; status "
nocopy:	.asciz	"copying above 1 MB failed (INT 15h, AH=87h); ax "
begin:	.asciz	"starting iPXE\r\n"
	.balign	4
entry:	.long	0
param:	.fill	16
range:	.fill	20
gdt:	.fill	48
	.org	0x500
	.section .note.GNU-stack, "", @progbits
