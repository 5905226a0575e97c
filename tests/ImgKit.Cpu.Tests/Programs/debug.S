# Single step, breakpoints, interrupt shadows, the FPU's availability and its exceptions, in 32-bit code.
    .include "frame.inc"
    start32 main

# Single-steps what stands between: the handler prints each address relative to `stepped`.
.macro step
    mov word ptr [idt+8], offset step_handler
    pushfd
    or dword ptr [esp], 0x100
    popfd
stepped\@:
.endm
.macro unstep
    pushfd
    and dword ptr [esp], 0xFFFFFEFF
    popfd
    mov word ptr [idt+8], offset step_off
.endm

main:
    flat32
    call set_vectors32
    mov dword ptr [tss+4], 0xC000
    mov dword ptr [tss+8], SEL_DATA
    mov dword ptr [gdt+SEL_TSS], 0x67
    mov eax, offset tss
    mov [gdt+SEL_TSS+2], ax
    mov ax, SEL_TSS
    ltr ax
    mov ax, [idt+8]
    mov [old_vector], ax

    case "single step"
    step
    nop
    mov ecx, 2
1:  loop 1b
    push eax
    pop eax
    mov ax, SEL_DATA
    mov ss, ax
    nop
    mov edi, DATA
    mov ecx, 3
    rep stosb
    jmp 1f
    ud2
1:  call 2f
    cpuid
    pushfd
    pop ebx
    unstep
    and ebx, 0x100
    hex ebx

    case "step over int and fault"
    mov word ptr [idt+0x20*8], offset int20
    mov word ptr [idt+0x20*8+2], SEL_CODE
    mov dword ptr [idt+0x20*8+4], 0x8E00
    step
    int 0x20
    nop
    unstep
    say "then "
    try 1f
    pushfd
    or dword ptr [esp], 0x100
    popfd
    ud2
1:
    case "icebp"
    mov ax, [old_vector]
    mov [idt+8], ax
    try 1f
    .byte 0xF1
1:  mov eax, dr6
    hex eax

    case "instruction breakpoints"
    mov eax, 0xFFFF0FF0
    mov dr6, eax
    mov eax, offset bp_here
    mov dr0, eax
    mov eax, 0x402
    mov dr7, eax
    try 1f
    nop
bp_here:
    nop
    say "not hit "
1:  mov eax, dr6
    hex eax
    mov word ptr [idt+8], offset bp_handler
    xor ecx, ecx
    jmp bp_here2
    nop
bp_here2:
    mov eax, offset bp_here3
    mov dr0, eax
    mov edx, 3
bp_loop:
    nop
bp_here3:
    inc ecx
    dec edx
    jnz bp_loop
    hex ecx
    mov ax, [old_vector]
    mov [idt+8], ax

    case "data breakpoints"
    mov eax, 0xFFFF0FF0
    mov dr6, eax
    mov eax, DATA+4
    mov dr1, eax
    mov eax, 0x00D00408
    mov dr7, eax
    try 1f
    mov [DATA], eax
    mov [DATA+8], eax
    mov eax, [DATA+4]
    say "quiet "
    mov byte ptr [DATA+7], 1
    nop
    nop
1:  mov eax, dr6
    hex eax
    mov eax, 0xFFFF0FF0
    mov dr6, eax
    try 1f
    push dword ptr [DATA+4]
    pop dword ptr [DATA+3]
    nop
1:  mov eax, dr6
    hex eax
    mov eax, 0x00F00408
    mov dr7, eax
    try 1f
    mov esi, DATA
    mov ecx, 8
    rep lodsb
1:  hex esi
    hex ecx
    mov eax, 0x400
    mov dr7, eax

    case "the fpu is not available"
    fninit
    mov eax, cr0
    or al, 8
    mov cr0, eax
    try 1f
    fld1
1:  try 1f
    fwait
    say "fwait runs "
1:  mov eax, cr0
    or al, 2
    mov cr0, eax
    try 1f
    fwait
1:  clts
    mov eax, cr0
    or al, 4
    mov cr0, eax
    try 1f
    fld1
1:  fwait
    try 1f
    movq mm0, mm1
1:  try 1f
    xorps xmm0, xmm0
1:  mov eax, cr0
    and al, 0xF9
    mov cr0, eax
    try 1f
    xorps xmm0, xmm0
1:  mov eax, cr4
    or eax, 0x600
    mov cr4, eax
    xorps xmm0, xmm0
    mov eax, cr0
    or al, 8
    mov cr0, eax
    try 1f
    xorps xmm0, xmm0
1:  clts

    case "fpu exceptions"
    mov eax, cr0
    or al, 0x20
    mov cr0, eax
    fninit
    mov word ptr [DATA], 0x37B
    fldcw [DATA]
    fldz
    fld1
    fdivrp
    fnstsw ax
    movzx eax, ax
    hex eax
    try 1f
    mov eax, 0x1111
    fld1
1:  fnstsw ax
    movzx eax, ax
    and eax, 0xFF
    hex eax
    fnclex
    try 1f
    fld1
    say "clear "
1:  fninit
    fld1
    fldpi
    faddp
    fistp dword ptr [DATA]
    mov eax, [DATA]
    hex eax
    fnstcw [DATA]
    movzx eax, word ptr [DATA]
    hex eax

    case "simd exceptions"
    mov dword ptr [DATA], 0x1D80
    ldmxcsr [DATA]
    xorps xmm1, xmm1
    mov dword ptr [DATA+16], 0x3F800000
    movss xmm0, [DATA+16]
    try 1f
    divss xmm0, xmm1
1:  stmxcsr [DATA]
    mov eax, [DATA]
    hex eax
    mov eax, cr4
    and eax, 0xFFFFFBFF
    mov cr4, eax
    try 1f
    divss xmm0, xmm1
1:  mov dword ptr [DATA], 0x1F80
    ldmxcsr [DATA]
    mov dword ptr [DATA], 0x10000
    try 1f
    ldmxcsr [DATA]
1:  try 1f
    movaps xmm0, [DATA+4]
1:
    finish

2:  ret

step_handler:
    push eax
    mov eax, [esp+4]
    hex eax
    mov eax, dr6
    and eax, 0xF00F
    hex eax
    mov eax, 0xFFFF0FF0
    mov dr6, eax
    pop eax
    iretd
step_off:
    iretd
bp_handler:
    push eax
    mov eax, [esp+12]
    and eax, 0x10000
    hex eax
    or dword ptr [esp+12], 0x10000
    pop eax
    iretd
int20:
    pushfd
    pop eax
    and eax, 0x100
    hex eax
    iretd
    .balign 4
old_vector: .long 0
