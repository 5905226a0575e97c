# Protected mode without paging: segments, gates, rings, tasks, virtual 8086, flags.
    .include "frame.inc"
    start32 main

    .equ SEL_RO, SEL_FREE           # read-only data
    .equ SEL_SMALL, SEL_FREE+8      # data, limit FFF, base DATA
    .equ SEL_DOWN, SEL_FREE+16      # expand-down, limit FFF, 16 bits
    .equ SEL_XO, SEL_FREE+24        # execute-only code
    .equ SEL_CONF, SEL_FREE+32      # conforming code
    .equ SEL_ABSENT, SEL_FREE+40
    .equ SEL_GATE, SEL_FREE+48      # call gate to ring 0, 2 parameters
    .equ SEL_GATE16, SEL_FREE+56    # 16-bit call gate
    .equ SEL_TSS2, SEL_FREE+64
    .equ SEL_TGATE, SEL_FREE+72
    .equ SEL_LDT, SEL_FREE+80
    .equ SEL_TSS16, SEL_FREE+88
    .equ SEL_SMALLCODE, SEL_FREE+96 # code with limit of `small_end`

.macro descriptor selector, low, high
    mov dword ptr [gdt+\selector], \low
    mov dword ptr [gdt+\selector+4], \high
.endm

.macro farcall selector, offset
    .byte 0x9A
    .long \offset
    .word \selector
.endm
# Jumps to a branch with this count and flags (ZF where `flag` is 0); prints count, and what was pushed as CS where the stack has not moved.
.macro small label, count=2, flag=0, selector=SEL_SMALLCODE
    mov esp, STACK
    try 9f
    mov esp, STACK-16
    mov dword ptr [STACK-24], 0
    mov ecx, \count
    .if \selector == SEL_SMALLCODE
    mov ebx, offset beyond
    .endif
    mov [STACK-16], ebx
    mov eax, \flag
    test eax, eax
    farjump \selector, \label
9:  mov eax, [STACK-24]
    hex ecx
    hex eax
.endm
.macro farjump selector, offset
    .byte 0xEA
    .long \offset
    .word \selector
.endm

# Runs `label` at ring 3 with its own stack; it comes back by an exception.
.macro ring3 label
    push SEL_UDATA
    push 0xE000
    pushfd
    push SEL_UCODE
    push offset \label
    iretd
.endm

main:
    flat32
    call set_vectors32
    descriptor SEL_RO, 0x0000FFFF, 0x00CF9100
    descriptor SEL_SMALL, 0x00000FFF, 0x0040F302
    descriptor SEL_DOWN, 0x00000FFF, 0x00009702
    descriptor SEL_XO, 0x0000FFFF, 0x00CF9900
    descriptor SEL_CONF, 0x0000FFFF, 0x00CF9F00
    descriptor SEL_ABSENT, 0x0000FFFF, 0x00CF1300
    descriptor SEL_GATE, SEL_CODE*0x10000, 0x0000EC02
    mov eax, offset gate_target
    mov [gdt+SEL_GATE], ax
    descriptor SEL_GATE16, SEL_CODE*0x10000, 0x0000E402
    mov eax, offset gate_target16
    mov [gdt+SEL_GATE16], ax
    descriptor SEL_TSS2, 0x00000067, 0x00008900
    mov eax, offset tss2
    mov [gdt+SEL_TSS2+2], ax
    descriptor SEL_TGATE, SEL_TSS2*0x10000, 0x0000E500
    descriptor SEL_LDT, 0x0000000F, 0x00008200
    mov eax, offset ldt
    mov [gdt+SEL_LDT+2], ax
    descriptor SEL_TSS16, 0x0000002B, 0x00008100
    mov eax, offset tss16
    mov [gdt+SEL_TSS16+2], ax
    mov dword ptr [tss+4], 0xC000
    mov dword ptr [tss+8], SEL_DATA
    mov word ptr [tss+0x66], 0x88
    mov dword ptr [gdt+SEL_TSS], 0x016F + (0 << 16)
    mov eax, offset tss
    mov [gdt+SEL_TSS+2], ax
    mov ax, SEL_TSS
    ltr ax
    mov al, [gdt+SEL_TSS+5]
    movzx eax, al

    case "busy"
    hex eax
    try 1f
    mov ax, SEL_TSS
    ltr ax
1:
    case "limits"
    mov ax, SEL_SMALL
    mov ds, ax
    mov dword ptr [0xFFC], 0x12345678
    mov eax, [0xFFC]
    hex eax
    try 1f
    mov eax, [0xFFD]
1:  mov ax, SEL_SMALL
    mov ds, ax
    try 1f
    mov [0x1000], al
1:  mov ax, SEL_SMALL
    mov fs, ax
    try 1f
    mov ebx, -1
    mov ax, fs:[ebx]
1:  mov ax, SEL_SMALL
    mov es, ax
    try 1f
    mov edi, 0xFF0
    mov ecx, 8
    xor eax, eax
    rep stosd
1:  hex edi
    hex ecx
    mov ax, SEL_DOWN
    mov es, ax
    try 1f
    mov dword ptr es:[0x1000], 1
    mov ax, es:[0xFFFE]
    movzx eax, ax
    hex eax
    mov eax, es:[0xFFFE]
1:  mov ax, SEL_DOWN
    mov es, ax
    try 1f
    mov al, es:[0xFFF]
1:
    case "types"
    mov ax, SEL_RO
    mov es, ax
    try 1f
    mov eax, es:[0x2000]
    mov es:[0x2000], eax
1:  mov ax, SEL_RO
    mov es, ax
    try 1f
    lock inc dword ptr es:[0x2000]
1:  try 1f
    mov cs:[0x2000], eax
1:  mov eax, cs:[0x2000]
    try 1f
    mov ax, SEL_RO
    mov ss, ax
1:  try 1f
    mov ax, SEL_XO
    mov ds, ax
1:  try 1f
    mov ax, SEL_ABSENT
    mov ds, ax
1:  try 1f
    mov ax, SEL_ABSENT
    mov ss, ax
1:  try 1f
    mov ax, SEL_TSS
    mov es, ax
1:  try 1f
    mov ax, 0x7F8
    mov gs, ax
1:  try 1f
    xor ax, ax
    mov es, ax
    mov eax, es:[0]
1:  try 1f
    xor ax, ax
    mov fs, ax
    mov fs:[0], eax
1:  try 1f
    xor ax, ax
    mov ss, ax
1:  farjump SEL_XO, 1f
1:  try 1f
    mov eax, cs:[0x2000]
1:
    case "stack limits"
    try 1f
    ring3 user_stack_push
1:  try 1f
    ring3 user_stack_pop
1:  try 1f
    ring3 user_stack_ebp
1:  try 1f
    ring3 user_stack_call
1:  try 1f
    ring3 user_stack_pusha
1:  try 1f
    ring3 user_stack_enter
1:
    case "stack of 16 bits"
    mov ax, SEL_DATA16
    mov esp, 0x1000F000
    mov ss, ax
    push 0x12345678
    hex esp
    pop eax
    hex eax
    pushw 7
    hex esp
    mov ax, SEL_DATA
    mov ss, ax
    mov esp, STACK

    case "lar lsl verr verw arpl"
    mov eax, 0x55555555
    mov ecx, SEL_CODE
    lar eax, ecx
    hex eax
    flags 0x40
    mov ecx, SEL_GATE
    lar eax, ecx
    hex eax
    lsl eax, ecx
    flags 0x40
    mov ecx, SEL_SMALL
    lsl eax, ecx
    hex eax
    flags 0x40
    mov ecx, 0x7F8
    lar eax, ecx
    flags 0x40
    mov ecx, SEL_RO
    verr cx
    flags 0x40
    verw cx
    flags 0x40
    mov ecx, SEL_XO
    verr cx
    flags 0x40
    mov eax, 0x10
    mov ecx, 0x13
    arpl ax, cx
    hex eax
    flags 0x40
    arpl ax, cx
    flags 0x40
    lar ax, cx
    hex eax

    case "ldt"
    try 1f
    mov ax, 4
    mov es, ax
1:  mov ax, SEL_LDT
    lldt ax
    sldt eax
    hex eax
    mov ax, 0x0C
    mov es, ax
    mov dword ptr es:[0], 0xCAFE
    mov eax, es:[0]
    hex eax
    try 1f
    mov ax, 0x14
    mov es, ax
1:  xor ax, ax
    lldt ax
    try 1f
    mov ax, SEL_DATA
    lldt ax
1:
    case "far transfers"
    farcall SEL_CODE, near_target
    farcall SEL_CONF, near_target
    try 1f
    farjump SEL_DATA, 0
1:  try 1f
    farjump 0, 0
1:  try 1f
    farjump SEL_UCODE, 1f
1:  try 1f
    farjump SEL_ABSENT, 1f
1:  try 1f
    farjump SEL_CODE16, 0x10000
1:  farcall SEL_CODE16, code16_target
    hex eax
    hex esp
    push SEL_CODE
    push offset 1f
    retf
1:  try 1f
    push SEL_DATA
    push 0
    retf
1:  push 0x1234
    push 0x5678
    farcall SEL_GATE, 0
    hex esp
    add esp, 8
    mov esp, STACK

    case "branches beyond the limit"
    descriptor SEL_SMALLCODE, 0x0000FFFF, 0x00409B00
    farjump SEL_SMALLCODE, small_jump
within:
    hex edx
    mov eax, offset beyond-1
    mov [gdt+SEL_SMALLCODE], ax
    small small_jump
    small small_jump16
    small small_call
    small small_je, 2, 0
    small small_je, 2, 1
    small small_loop
    small small_loop, 1
    small small_loop16, 0x10002
    small small_loope, 2, 0
    small small_loope, 2, 1
    small small_jecxz, 0
    small small_jecxz, 1
    small small_ret
    small small_ret4
    small small_ret16
    small small_jump_register
    small small_call_register
    small small_jump_memory
    small small_call_memory
    small small_last
    mov ebx, 0x12000
    small far16_jump, 0, 0, SEL_CODE16
    small far16_call, 0, 0, SEL_CODE16
    small far16_ret, 0, 0, SEL_CODE16
    small far16_direct, 0, 0, SEL_CODE16
    descriptor SEL_SMALLCODE, 0x0000FFFF, 0x00019B00
    mov dword ptr [0x11FFC], 0x90909090
    mov dword ptr [0x12000], 0x66401FB0     # mov al,0x1F; inc ax; jmp far
    mov byte ptr [0x12004], 0xEA
    mov dword ptr [0x12005], offset 1f
    mov word ptr [0x12009], SEL_CODE
    mov eax, ebx
    farjump SEL_SMALLCODE, 0x11FFC
1:  hex eax
    mov dword ptr [0x12005], offset 1f
    mov ebx, 0x12000
    farjump SEL_SMALLCODE, far16_jump
1:  hex eax
    mov esp, STACK

    case "ring 3 and back by exceptions"
    try 1f
    ring3 user_hlt
1:  try 1f
    ring3 user_cli
1:  try 1f
    ring3 user_out
1:  try 1f
    ring3 user_int3
1:  try 1f
    ring3 user_int80
1:  try 1f
    ring3 user_load
1:  try 1f
    ring3 user_cr
1:  try 1f
    ring3 user_popf
1:  try 1f
    ring3 user_call
1:  try 1f
    ring3 user_gate
1:  try 1f
    ring3 user_gate16
1:  try 1f
    ring3 user_sgdt
1:  try 1f
    ring3 user_conf
1:  try 1f
    ring3 user_ud
1:  try 1f
    ring3 user_retf
1:
    case "ports by the map"
    mov byte ptr [tss+0x88+0x10], 0
    mov byte ptr [tss+0x88+0x1D], 0
    mov byte ptr [tss+0x88+0x1E], 0
    try 1f
    ring3 user_port
1:
    case "iret to outer segments"
    mov ax, SEL_DATA
    mov ds, ax
    mov fs, ax
    mov ax, SEL_UDATA
    mov gs, ax
    try 1f
    ring3 user_selectors
1:
    case "bad irets"
    try 1f
    pushfd
    push SEL_DATA
    push offset 1f
    iretd
1:  try 1f
    push SEL_DATA
    push 0xE000
    pushfd
    push SEL_UCODE
    push offset user_ud
    iretd
1:  try 1f
    push SEL_UDATA
    push 0xE000
    pushfd
    push SEL_CODE+1
    push offset user_ud
    iretd
1:  try 1f
    pushfd
    push SEL_ABSENT
    push 0
    iretd
1:  hex esp

    case "tasks"
    mov eax, cr0
    and al, 0xF7
    mov cr0, eax
    call fill_tss2
    mov ebx, 0xB0B
    farcall SEL_TSS2, 0
    hex ebx
    pushfd
    pop eax
    and eax, 0x4000
    hex eax
    movzx eax, byte ptr [gdt+SEL_TSS2+5]
    hex eax
    str eax
    hex eax
    smsw ax
    and eax, 8
    hex eax
    clts
    farcall SEL_TGATE, 0
    mov eax, [tss2+0x20]
    hex eax
    call fill_tss2
    mov word ptr [tss2+0x20], offset task_jump
    farjump SEL_TSS2, 0
after_jump:
    movzx eax, byte ptr [gdt+SEL_TSS+5]
    hex eax
    movzx eax, byte ptr [gdt+SEL_TSS2+5]
    hex eax

    case "faults of a task switch"
    call fill_tss2
    mov word ptr [tss2+0x54], SEL_ABSENT
    try 1f
    farcall SEL_TSS2, 0
1:  call back_to_first
    try 1f
    farcall SEL_TSS, 0
1:  mov word ptr [gdt+SEL_TSS2], 0x66
    try 1f
    farcall SEL_TSS2, 0
1:  mov word ptr [gdt+SEL_TSS2], 0x67

    case "a double fault by a task gate"
    call fill_tss2
    mov word ptr [tss2+0x20], offset task_double
    mov dword ptr [idt+8*8], SEL_TSS2*0x10000
    mov dword ptr [idt+8*8+4], 0x8500
    mov dword ptr [idt+13*8+4], 0x0E00
    try 1f
    mov ax, 0x7F8
    mov es, ax
1:  call set_vectors32
    clts

    case "a 16-bit task"
    mov word ptr [tss16+0x0E], offset task16
    mov word ptr [tss16+0x10], 2
    mov word ptr [tss16+0x1A], 0xA000
    mov word ptr [tss16+0x22], SEL_DATA16
    mov word ptr [tss16+0x24], SEL_CODE16
    mov word ptr [tss16+0x26], SEL_DATA16
    mov word ptr [tss16+0x28], SEL_DATA16
    farcall SEL_TSS16, 0
    hex esp
    clts

    case "virtual 8086"
    mov dword ptr [v86_flags], 0x20002
    call enter_v86
    mov dword ptr [v86_flags], 0x23002
    call enter_v86
    case "virtual 8086 with vme"
    mov eax, cr4
    or al, 1
    mov cr4, eax
    mov dword ptr [0x21*4], offset v86_int21
    mov dword ptr [v86_flags], 0xA0002
    mov dword ptr [v86_start], offset v86_vme
    call enter_v86
    mov eax, cr4
    and al, 0xFE
    mov cr4, eax

    case "control registers"
    try 1f
    mov eax, cr0
    or eax, 0x20000000
    mov cr0, eax
1:  try 1f
    mov eax, 0x80000000
    mov cr0, eax
1:  try 1f
    mov eax, 0x80000000
    mov cr4, eax
1:  try 1f
    .byte 0x0F, 0x20, 0xC8
1:  try 1f
    .byte 0x0F, 0x22, 0xE8
1:  mov eax, 0x12345678
    mov cr2, eax
    mov eax, cr2
    hex eax
    case "debug registers"
    mov eax, -1
    mov dr6, eax
    mov eax, dr6
    hex eax
    xor eax, eax
    mov dr6, eax
    mov eax, dr6
    hex eax
    mov eax, 0xD700
    mov dr7, eax
    mov eax, dr7
    hex eax
    mov eax, 0x2400
    mov dr7, eax
    try 1f
    mov eax, dr0
1:  mov eax, dr6
    hex eax
    mov eax, 0x400
    mov dr7, eax
    finish

near_target:
    mov eax, [esp]
    hex eax
    mov eax, [esp+4]
    hex eax
    mov eax, cs
    hex eax
    retf

gate_target:
    mov eax, cs
    hex eax
    mov eax, ss
    hex eax
    mov eax, [esp+8]
    hex eax
    mov eax, [esp+12]
    hex eax
    hex esp
    .byte 0xCA, 8, 0
gate_target16:
    mov eax, [esp]
    hex eax
    mov eax, [esp+4]
    hex eax
    mov eax, [esp+8]
    hex eax
    hex esp
    .byte 0x66, 0xCA, 4, 0

    .code16
code16_target:
    mov eax, 0x16161616
    mov ax, cs
    retfd
task16:
    mov eax, esp
    iret
    .code32

.macro small_stack pointer
    mov ax, SEL_SMALL+3
    mov ss, ax
    mov esp, \pointer
.endm
user_stack_push:
    small_stack 2
    push eax
user_stack_pop:
    small_stack 0xFFE
    pop eax
user_stack_ebp:
    small_stack 0x100
    mov ebp, 0x1000
    mov eax, [ebp]
user_stack_call:
    small_stack 0x1010
    call user_hlt
user_stack_pusha:
    small_stack 0x10
    pushad
user_stack_enter:
    small_stack 0x10
    enter 0x10, 0
user_hlt: hlt
user_cli: cli
user_out: out 0x80, al
user_int3: int3
user_int80: int 0x10
user_load:
    mov ax, SEL_DATA
    mov ds, ax
user_cr: mov eax, cr0
user_popf:
    pushfd
    or dword ptr [esp], 0x3200
    popfd
    pushfd
    pop ebx
    and ebx, 0x3200
    ud2
user_call: farcall SEL_CODE, near_target
user_gate:
    mov ax, SEL_UDATA
    mov ds, ax
    push 0x1111
    push 0x2222
    farcall SEL_GATE+3, 0
    ud2
user_gate16:
    mov ax, SEL_UDATA
    mov ds, ax
    pushw 0x1111
    pushw 0x2222
    farcall SEL_GATE16+3, 0
    ud2
user_sgdt:
    mov ax, SEL_UDATA
    mov ds, ax
    sgdt [DATA]
    str ecx
    smsw cx
    ud2
user_conf:
    farjump SEL_CONF, 1f
1:  ud2
user_retf:
    push SEL_CODE
    push 0
    retf
user_ud: ud2
user_port:
    mov dx, 0xE9
    mov al, '!'
    out dx, al
    out dx, ax
user_selectors:
    mov eax, ds
    shl eax, 16
    mov ax, fs
    mov ebx, gs
    push eax
    push ebx
    ud2

fill_tss2:
    mov edi, offset tss2
    xor eax, eax
    mov ecx, 0x1A
    rep stosd
    mov dword ptr [tss2+0x20], offset task2
    mov dword ptr [tss2+0x24], 2
    mov dword ptr [tss2+0x38], 0xB000
    mov eax, SEL_DATA
    mov [tss2+0x48], eax
    mov dword ptr [tss2+0x4C], SEL_CODE
    mov [tss2+0x50], eax
    mov [tss2+0x54], eax
    mov [tss2+0x58], eax
    mov [tss2+0x5C], eax
    mov byte ptr [gdt+SEL_TSS2+5], 0x89
    ret

# After a fault in the second task: leaves it for the first, with this stack.
back_to_first:
    pop dword ptr [tss+0x20]
    mov dword ptr [tss+0x24], 2
    mov eax, [resume_sp]
    mov [tss+0x38], eax
    mov eax, SEL_DATA
    mov [tss+0x48], eax
    mov dword ptr [tss+0x4C], SEL_CODE
    mov [tss+0x50], eax
    mov [tss+0x54], eax
    mov [tss+0x58], eax
    mov [tss+0x5C], eax
    mov byte ptr [gdt+SEL_TSS+5], 0x89
    farjump SEL_TSS, 0

task2:
    mov eax, [tss2]
    hex eax
    pushfd
    pop eax
    hex eax
    hex esp
    str eax
    hex eax
    iretd
    say "again "
    iretd
task_jump:
    mov dword ptr [tss+0x20], offset after_jump
    farjump SEL_TSS, 0
task_double:
    pop eax
    hex eax
    mov eax, [tss+0x20]
    sub eax, [resume_ip]
    hex eax
    movzx eax, word ptr [tss2]
    hex eax
    mov eax, [resume_ip]
    mov [tss+0x20], eax
    iretd

# Runs 16-bit code at v86_start with v86_flags until it faults.
enter_v86:
    try 1f
    push 0
    push 0
    push 0
    push DATA/16
    push 0
    push 0xD000
    push [v86_flags]
    push 0
    push [v86_start]
    iretd
1:  ret

    .code16
v86_code:
    mov ax, 0x1234
    push ax
    pop bx
    mov eax, ds
    shl eax, 16
    mov ax, [v86_word]
    mov [0x10], eax
    mov eax, [0x10]
    pushf
    cli
    .byte 0xCC
v86_vme:
    pushf
    pop ax
    movzx eax, ax
    mov cs, cs:[v86_word]
v86_int21:
    iret
    .code32

    .balign 128
small_jump:
    jmp beyond
small_jump16:
    .byte 0x66, 0xE9
    .word beyond-.-2
small_call:
    call beyond
small_je:
    je beyond
    ud2
small_loop:
    loop beyond
    ud2
small_loop16:
    .byte 0x67, 0xE2, beyond-.-1
small_loope:
    loope beyond
    ud2
small_jecxz:
    jecxz beyond
    ud2
small_ret:
    ret
small_ret4:
    ret 4
small_ret16:
    .byte 0x66, 0xC3
small_jump_register:
    jmp ebx
small_call_register:
    call ebx
small_jump_memory:
    jmp [esp]
small_call_memory:
    call [esp]
small_last:
    nop
beyond:
    mov edx, 0x77
    farjump SEL_CODE, within

    .code16
far16_jump:
    jmp ebx
far16_call:
    call ebx
far16_ret:
    .byte 0x66, 0xC3
far16_direct:
    .byte 0x66, 0xE9
    .long 0x12000-.-4
    .code32

    .balign 4
v86_flags:  .long 0
v86_start:  .long v86_code
v86_word:   .word 0x5A5A
    .balign 8
ldt:
    .quad 0
    .quad 0x0040920200000FFF
tss2:
    .fill 0x68, 1, 0
tss16:
    .fill 0x2C, 1, 0
