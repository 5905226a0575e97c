# Long mode: entry, exceptions on aligned and interrupt stacks, system calls, compatibility mode, canonical addresses, NX, SMEP, SMAP.
    .include "frame.inc"
    start32 main

    .equ PML4, TABLES
    .equ PDPT, TABLES+0x1000
    .equ PD, TABLES+0x2000
    .equ PT, TABLES+0x3000
    .equ WIN, 0x400000              # linear WIN + n*1000: entry n of PT
    .equ PHYS, 0x200000
    .equ HIGH_HALF, 0xFFFF800000000000

main:
    flat32
    call set_vectors32
    xor eax, eax
    mov edi, PML4
    mov ecx, 0x1000
    rep stosd
    mov dword ptr [PML4], PDPT+7
    mov dword ptr [PML4+256*8], PDPT+7
    mov dword ptr [PDPT], PD+7
    mov dword ptr [PD], 0x87
    mov dword ptr [PD+8], 0x200087
    mov dword ptr [PD+16], PT+7

    case "long mode needs pae and a cr3"
    mov ecx, 0xC0000080
    mov eax, 0x900
    xor edx, edx
    wrmsr
    try 1f
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
1:  mov eax, cr4
    or eax, 0x20
    mov cr4, eax
    mov eax, PML4
    mov cr3, eax
    mov eax, cr0
    or eax, 0x80010000
    mov cr0, eax
    mov ecx, 0xC0000080
    rdmsr
    hex eax
    .byte 0xEA
    .long start64
    .word SEL_CODE64

    .set MODE, 64
    .code64
.macro page n, bits
    mov dword ptr [PT+\n*8], PHYS+\n*0x1000+\bits
    mov dword ptr [PT+\n*8+4], 0
    invlpg [WIN+\n*0x1000]
.endm
# Runs bytes at this place of the page below the first address that is none, with this count, ZF where `flag` is 0, and such an address in
# RBX and on the stack.
.macro edge at, count, flag, bytes:vararg
    mov esp, STACK
    try 9f
    mov rdi, 0x7FFFFFFFF000+\at
    mov rbp, rdi
    mov esi, offset 8f
    mov ecx, 9f-8f
    rep movsb
    mov ecx, \count
    mov eax, \flag
    test eax, eax
    mov rbx, 0x0000800000000123
    push rbx
    jmp rbp
8:  .byte \bytes
9:  hex rcx
.endm
.macro ring3 label
    push SEL_UDATA
    push WIN+0x1F000+0xF08
    pushfq
    push SEL_UCODE64
    push offset \label
    iretq
.endm

start64:
    mov eax, SEL_DATA
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov rsp, STACK
    call set_vectors64
    mov dword ptr [gdt+SEL_TSS], 0x67
    mov eax, offset tss
    mov [gdt+SEL_TSS+2], ax
    mov dword ptr [gdt+SEL_TSS+8], 0
    mov dword ptr [gdt+SEL_TSS+12], 0
    mov qword ptr [tss+4], 0xC000
    mov qword ptr [tss+36], 0xB000
    mov eax, SEL_TSS
    ltr ax
    page 31, 7

    case "exceptions"
    try 1f
    ud2
1:  try 1f
    mov rax, rsp
    sub rsp, 3
    ud2
1:  try 1f
    mov byte ptr [idt+6*16+4], 1
    ud2
1:  mov byte ptr [idt+6*16+4], 0
    try 1f
    xor eax, eax
    div eax
1:  try 1f
    int3
1:  try 1f
    int 0x30
1:  try 1f
    mov word ptr [idt+6*16+2], SEL_CODE
    ud2
1:  mov word ptr [idt+6*16+2], SEL_CODE64
    try 1f
    .byte 0x06                  # push es
1:  try 1f
    .byte 0xEA, 0, 0, 0, 0, 0, 0
1:  try 1f
    .byte 0xCE                  # into
1:  try 1f
    .byte 0x27                  # daa
1:  try 1f
    .byte 0x62, 0x00            # bound is evex now
1:
    case "canonical addresses"
    mov rbx, 0x0000800000000000
    try 1f
    mov rax, [rbx]
1:  mov rbx, 0x0000800000000000
    try 1f
    mov [rbx-4], rax
1:  mov rbp, 0x0000800000000000
    try 1f
    mov rax, [rbp]
1:  mov byte ptr [idt+12*16+4], 1
    try 1f
    mov rsp, 0x0000800000000010
    push rax
1:  mov ecx, 0xC0000082
    mov edx, 0x8000
    xor eax, eax
    try 1f
    wrmsr
1:  mov rbx, HIGH_HALF
    mov eax, [rbx+gdt+8]
    hex rax

    case "branches to no address"
    mov dword ptr [PML4+255*8], PDPT+7
    mov dword ptr [PDPT+511*8], PD+7
    mov dword ptr [PD+511*8], PT+7
    mov dword ptr [PT+511*8], PHYS+0x1FF007
    mov dword ptr [PT+510*8], PHYS+0x1FE007
    edge 0xFC0, 2, 0, 0xEB, 0x7F
    edge 0xFC0, 2, 0, 0xE9, 0, 1, 0, 0
    edge 0xFC0, 2, 0, 0xE8, 0, 1, 0, 0
    edge 0xFC0, 2, 0, 0x74, 0x7F, 0x0F, 0x0B
    edge 0xFC0, 2, 1, 0x74, 0x7F, 0x0F, 0x0B
    edge 0xFC0, 2, 0, 0x0F, 0x84, 0, 1, 0, 0
    edge 0xFC0, 2, 0, 0xE2, 0x7F
    edge 0xFC0, 1, 0, 0xE2, 0x7F, 0x0F, 0x0B
    edge 0xFC0, 2, 0, 0x67, 0xE2, 0x7F
    edge 0xFC0, 2, 0, 0xE1, 0x7F
    edge 0xFC0, 2, 1, 0xE1, 0x7F, 0x0F, 0x0B
    edge 0xFC0, 2, 1, 0xE0, 0x7F
    edge 0xFC0, 0, 0, 0xE3, 0x7F
    edge 0xFC0, 1, 0, 0xE3, 0x7F, 0x0F, 0x0B
    edge 0xFFF, 0, 0, 0x90
    edge 0xFFE, 0, 0, 0x75, 0
    edge 0xFE0, 0, 0, 0xC3
    edge 0xFE0, 0, 0, 0xC2, 8, 0
    edge 0xFE0, 0, 0, 0xFF, 0xD3
    edge 0xFE0, 0, 0, 0xFF, 0xE3
    edge 0xFE0, 0, 0, 0xFF, 0x14, 0x24
    edge 0xFE0, 0, 0, 0xFF, 0x24, 0x24
    mov rdi, 0xFFFF7FFFFFFFFFFF
    try 1f
    jmp rdi
1:
    case "segments"
    xor eax, eax
    mov ss, eax
    mov eax, ss
    hex rax
    mov eax, SEL_DATA
    mov ss, eax
    mov ecx, 0xC0000100
    mov eax, DATA
    xor edx, edx
    wrmsr
    mov qword ptr [DATA+8], 0x55
    mov rax, fs:[8]
    hex rax
    mov rax, ds:[DATA+8]
    hex rax
    mov eax, SEL_DATA
    mov fs, eax
    mov ecx, 0xC0000100
    rdmsr
    hex rax
    mov ecx, 0xC0000101
    mov eax, 0x1234
    wrmsr
    mov ecx, 0xC0000102
    mov eax, 0x5678
    mov edx, 0xFFFF8000
    wrmsr
    swapgs
    mov ecx, 0xC0000101
    rdmsr
    shl rdx, 32
    or rax, rdx
    hex rax
    try 1f
    mov eax, 0x7F8
    mov es, eax
1:  mov ax, 0x55AA
    mov rcx, -1
    mov cx, cs
    hex rcx
    mov rcx, -1
    mov ecx, ds
    hex rcx

    case "far returns and calls"
    push SEL_CODE64
    push offset 1f
    rex.W retf
1:  mov dword ptr [DATA], offset far64
    mov word ptr [DATA+4], SEL_CODE64
    mov rbx, rsp
    call fword ptr [DATA]
    sub rbx, rsp
    hex rbx
    try 1f
    push SEL_DATA
    push 0
    rex.W retf
1:
    case "compatibility mode"
    push SEL_CODE
    push offset compat
    rex.W retf
compat_back:
    hex rax
    try 1f
    push SEL_UDATA
    push 0x41FF00
    pushfq
    push SEL_UCODE
    push offset compat_user
    iretq
1:
    case "system calls"
    mov ecx, 0xC0000080
    rdmsr
    or eax, 1
    wrmsr
    mov ecx, 0xC0000081
    xor eax, eax
    mov edx, 0x00300008         # SYSRET: 30+16 = 40, SS 38; SYSCALL: 8... its CS gets L by SYSCALL itself
    wrmsr
    mov ecx, 0xC0000082
    mov eax, offset syscall64
    xor edx, edx
    wrmsr
    mov ecx, 0xC0000084
    mov eax, 0x40200
    wrmsr
    try 1f
    ring3 user_syscall
1:
    case "user and supervisor pages"
    page 1, 3
    page 2, 7
    page 3, 5
    try 1f
    ring3 user_read1
1:  try 1f
    ring3 user_write3
1:  try 1f
    mov [WIN+0x3000], rax
1:
    case "nx"
    mov byte ptr [WIN+0x2000], 0xC3
    call call_win2
    mov ecx, 0xC0000080
    rdmsr
    or eax, 0x800
    wrmsr
    mov dword ptr [PT+2*8+4], 0x80000000
    invlpg [WIN+0x2000]
    try 1f
    call call_win2
1:  mov al, [WIN+0x2000]
    movzx eax, al
    hex rax
    mov dword ptr [PT+2*8+4], 0x00100000
    invlpg [WIN+0x2000]
    mov al, [WIN+0x2000]
    mov dword ptr [PT+2*8+4], 0x00000100
    invlpg [WIN+0x2000]
    try 1f
    mov al, [WIN+0x2000]
1:  mov dword ptr [PT+2*8+4], 0

    case "smep"
    page 2, 7
    mov dword ptr [PD], 0x83
    mov rax, cr3
    mov cr3, rax
    mov rax, cr4
    or eax, 0x100000
    mov cr4, rax
    try 1f
    call call_win2
1:  mov rax, cr4
    and eax, 0xFFEFFFFF
    mov cr4, rax

    case "registers"
    mov rax, -1
    mov eax, 5
    hex rax
    mov rax, -1
    mov ax, 5
    hex rax
    mov rax, -1
    mov ecx, 0x80000000
    movsxd rax, ecx
    hex rax
    mov rax, -1
    xor ecx, ecx
    cmp ecx, 1
    cmove eax, ecx
    hex rax
    mov rsi, DATA
    mov rdi, DATA+0x100
    mov rcx, 0x100000002
    mov ecx, 2
    rep movsq
    hex rdi
    mov rcx, 0x100000003
    .byte 0x67
    rep movsb
    hex rcx
    enter 0x20, 0
    hex rsp
    leave
    hex rsp
    lea rax, [rip+0x10]
    lea ecx, [rip+0x10-6]
    sub rax, rcx
    hex rax
    mov rax, 0x123456789ABCDEF0
    mov [DATA], rax
    movabs al, [DATA+7]
    hex rax
    push 0x7FFFFFFF
    pop rax
    hex rax
    push -2
    pop rax
    hex rax
    pushw 0x1234
    mov rbx, rsp
    popw ax
    sub rbx, rsp
    hex rbx
    mov eax, 0x11
    mov r15, 0x22
    xchg rax, r15
    hex r15
    bswap rax
    hex rax

    case "leaving long mode"
    try 1f
    mov rax, cr0
    and eax, 0x7FFFFFFF
    mov cr0, rax
1:  try 1f
    mov rax, cr4
    and eax, 0xFFFFFFDF
    mov cr4, rax
1:  try 1f
    mov rax, cr0
    bts rax, 40
    mov cr0, rax
1:  mov rax, cr8
    hex rax
    mov eax, 5
    mov cr8, rax
    mov rax, cr8
    hex rax
    xor eax, eax
    mov cr8, rax
    push SEL_CODE
    push offset leave64
    rex.W retf

call_win2:
    mov rax, WIN+0x2000
    call rax
    say "ran "
    ret

far64:
    mov rax, [rsp]
    hex rax
    mov rax, [rsp+8]
    and eax, 0xFFFF
    hex rax
    .byte 0xCB

user_syscall:
    std
    syscall
    mov eax, cs
    mov ebx, ss

    ud2
syscall64:
    hex rcx
    mov rax, r11
    and eax, 0xCD5
    hex rax
    mov eax, cs
    hex rax
    mov eax, ss
    hex rax
    pushfq
    pop rax
    and eax, 0x40600
    hex rax
    cld
    and r11, 0xFFFFFFFFFFFFFBFF
    sysretq
user_read1: mov rax, [WIN+0x1000]
user_write3:
    mov rax, [WIN+0x3000]
    mov [WIN+0x3000], rax

    .code32
compat:
    mov ax, SEL_DATA
    mov ss, ax
    mov eax, 0x12345678
    inc eax
    push eax
    pop eax
    .byte 0xEA
    .long compat_back
    .word SEL_CODE64
compat_user:
    mov eax, 0x7FFFFFFF
    inc eax
    push es
    pop es
    ud2

    .set MODE, 32
leave64:
    mov ax, SEL_DATA
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov eax, cr0
    and eax, 0x7FFFFFFF
    mov cr0, eax
    mov ecx, 0xC0000080
    rdmsr
    hex eax
    finish
